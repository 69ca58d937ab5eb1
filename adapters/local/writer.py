"""`transformers-text`: any causal language model, by the chat template of its own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, JsonValue, PositiveInt

from ..contract import AdapterError, Location, Refusal, TextRequest
from .batches import Batches
from .folder import ModelFolder
from .model import FolderConfig, identity_of, load, needs_an_accelerator, opening, placed, quiet
from .seeds import seed_of

if TYPE_CHECKING:
    from .generation import Ask

_STEP = 32
"""Prompts whose lengths round up to the same multiple share a batch."""


class TransformersTextConfig(FolderConfig):
    """How the model is asked; what is not set is as said here.

    temperature, max_tokens    where the request does not say; temperature 0 is deterministic, so its draws are equal
    top_k, top_p               sample only from the likeliest tokens
    stop, stop_tokens          strings and tokens that end a reply, beside the model's own
    plain                      send the messages' text without a template: for a model that was never taught to chat
    template_options           for the chat template, such as { enable_thinking = false }
    offload                    layers that do not fit on the accelerator stay in main memory
    """

    answers: ClassVar[tuple[type, ...]] = (TextRequest,)

    kind: str = Field(default="transformers-text", pattern="^transformers-text$")
    temperature: float = Field(default=1.0, ge=0)
    max_tokens: PositiveInt = 512
    top_k: PositiveInt | None = None
    top_p: float | None = Field(default=None, gt=0, le=1)
    stop: tuple[str, ...] = ()
    stop_tokens: tuple[str, ...] = ()
    plain: bool = False
    template_options: dict[str, JsonValue] = Field(default_factory=dict)
    offload: bool = False

    def open(self) -> TransformersText:
        folder = self.located()
        with opening(self.kind, "transformers"):
            return TransformersText(self, folder)


class TransformersText:
    """Replies without the special tokens and the blanks around them. A prompt that leaves no room to answer is refused."""

    location = Location.LOCAL

    def __init__(self, config: TransformersTextConfig, folder: ModelFolder) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from .generation import Manner, ends_of, plainly

        placement = placed(config, accelerated="bfloat16")
        if config.offload:
            needs_an_accelerator(config, placement)
        self.config = config
        self._tokenizer = AutoTokenizer.from_pretrained(folder.path, local_files_only=True)
        if not config.plain and not self._tokenizer.chat_template:
            raise ValueError("its tokenizer has no chat template; set plain = true to send it the messages' text alone")
        self._model = load(AutoModelForCausalLM, folder, placement, offload=config.offload, compile=config.compile)
        ends = ends_of(self._model, self._tokenizer, config.stop_tokens)
        plainly(self._model, ends)
        self._manner = Manner(top_k=config.top_k, top_p=config.top_p, ends=ends, stop=config.stop)
        self._context: int | None = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        self._batches = Batches(config.batch_size or (8 if placement.is_cpu else 32), kind=config.kind, full=False)
        self.identity = identity_of(folder.name, folder.fingerprint, placement, ("torch", "transformers"))

    @property
    def batch_size(self) -> int:
        """Requests at once, as far as memory has shown."""
        return self._batches.size

    def send(self, requests: Sequence[TextRequest], /) -> list[str | Refusal]:
        with quiet():
            rows = [self._row(request) for request in requests]
            writable = [row for row in rows if not isinstance(row, Refusal)]
            texts = iter(self._batches.run(writable, self._written, shape=lambda row: -(-len(row[0]) // _STEP)))
            return [row if isinstance(row, Refusal) else next(texts) for row in rows]

    def _written(self, rows: list[tuple[list[int], Ask]]) -> list[str]:
        from .generation import continued, left_padded

        inputs = left_padded([ids for ids, _ in rows], self._tokenizer.pad_token_id or 0, self._model.device)
        return continued(self._model, inputs, [ask for _, ask in rows], self._manner, self._decoded)

    def _row(self, request: TextRequest) -> tuple[list[int], Ask] | Refusal:
        """The prompt's tokens and how to go on from them."""
        from .generation import Ask

        ids: list[int] = self._tokens(request)
        room = (self._context or len(ids) + 1_000_000) - len(ids)
        if room < 1:
            return Refusal(f"the prompt has {len(ids)} tokens and the model reads {self._context}")
        temperature = self.config.temperature if request.temperature is None else request.temperature
        limit = min(request.max_tokens or self.config.max_tokens, room)
        return ids, Ask(seed=seed_of(request), temperature=temperature, max_tokens=limit)

    def _tokens(self, request: TextRequest) -> list[int]:
        messages = [{"role": message.role, "content": message.content} for message in request.messages]
        if self.config.plain:
            return self._tokenizer("\n\n".join(message["content"] for message in messages))["input_ids"]
        from jinja2 import TemplateError

        try:
            text = self._templated(messages)
        except TemplateError:
            # Some templates know no system message.
            try:
                text = self._templated(_without_system(messages))
            except TemplateError as error:
                raise AdapterError(f"{self.config.kind}: the chat template refuses these roles: {error}") from None
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]

    def _templated(self, messages: list[dict[str, str]]) -> Any:
        return self._tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, **self.config.template_options
        )

    def _decoded(self, tokens: list[int]) -> str:
        return self._tokenizer.decode(tokens, skip_special_tokens=True)


def _without_system(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """The system messages put at the head of the first user message."""
    said = [message["content"] for message in messages if message["role"] == "system"]
    others = [message for message in messages if message["role"] != "system"]
    if not said or not others or others[0]["role"] != "user":
        return messages
    return [{"role": "user", "content": "\n\n".join([*said, others[0]["content"]])}, *others[1:]]
