"""Tiny models with random weights, built from configs and saved as real ones are: for the tests of several folders.

`MAKERS[name](folder)` fills a folder that the adapters' own `from_pretrained` loads.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

CHAT = (
    "{% for message in messages %}{% if message.role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    "<{{ message.role }}>{{ message.content }}<end>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
WORDS = [
    "a",
    "an",
    "the",
    "photo",
    "picture",
    "of",
    "in",
    "on",
    "big",
    "small",
    "red",
    "blue",
    "green",
    "old",
    "new",
    "cat",
    "dog",
    "house",
    "tree",
    "river",
    "bed",
    "room",
    "lamp",
]


def llama(path: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE(unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = ["<unk>", "<bos>", "<end>", "<user>", "<assistant>", "<halt>"]
    raw.train_from_iterator(
        [" ".join(WORDS)] * 4,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", bos_token="<bos>", eos_token="<end>", chat_template=CHAT
    )
    tokenizer.save_pretrained(path)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=192,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config)
    # Habits that a real model's folder may have, and that ours is to take from it.
    model.generation_config.update(do_sample=True, temperature=0.3, top_p=0.5, repetition_penalty=5.0, max_length=20)
    model.save_pretrained(path)


def blip(path: Path) -> None:
    from transformers import BertTokenizerFast, BlipConfig, BlipForConditionalGeneration, BlipProcessor
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *WORDS]
    tokenizer = BertTokenizerFast(vocab={word: index for index, word in enumerate(vocabulary)})
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    BlipProcessor(BlipImageProcessorPil(size={"height": 16, "width": 16}), tokenizer).save_pretrained(path)
    sides = {"hidden_size": 32, "intermediate_size": 64, "projection_dim": 16}
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2}
    text = {
        "vocab_size": len(vocabulary),
        "encoder_hidden_size": 32,
        "max_position_embeddings": 48,
        "bos_token_id": 5,
        "eos_token_id": 3,
        "sep_token_id": 3,
        "pad_token_id": 0,
        # Large weights, so that captions of different images differ.
        "initializer_range": 0.6,
    }
    config = BlipConfig(
        text_config={**sides, **layers, **text},
        vision_config={**sides, **layers, "image_size": 16, "patch_size": 8, "initializer_range": 0.6},
        projection_dim=16,
    )
    BlipForConditionalGeneration(config).save_pretrained(path)


def llava(path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    special = ["<pad>", "<unk>", "<bos>", "<eos>", "<image>", "USER:", "ASSISTANT:"]
    vocabulary = [*special, *WORDS]
    raw = Tokenizer(models.WordLevel({word: index for index, word in enumerate(vocabulary)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    template = (
        "{% for message in messages %}USER: {% for part in message.content %}{% if part.type == 'image' %}<image> "
        "{% else %}{{ part.text }} {% endif %}{% endfor %}{% endfor %}ASSISTANT:"
    )
    images = CLIPImageProcessorPil(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, do_convert_rgb=True
    )
    LlavaProcessor(
        images,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=template,
        num_additional_image_tokens=1,
    ).save_pretrained(path)
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        initializer_range=0.6,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
        initializer_range=0.4,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_id=4)
    LlavaForConditionalGeneration(config).save_pretrained(path)


def _clip_tokenizer() -> Any:
    from transformers import CLIPTokenizer

    letters = list("abcdefghijklmnopqrstuvwxyz0123456789.,")
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={piece: index for index, piece in enumerate(pieces)}, merges=[], model_max_length=16)


def _clip_text(tokenizer: Any, *, projected: bool) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=16,
        projection_dim=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        hidden_act="gelu",
        initializer_range=0.5,
    )
    return CLIPTextModelWithProjection(config) if projected else CLIPTextModel(config)


def sdxl(path: Path) -> None:
    from diffusers import (
        AutoencoderKL,
        EulerAncestralDiscreteScheduler,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )

    tokenizer = _clip_tokenizer()
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        norm_num_groups=8,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 1),
        projection_class_embeddings_input_dim=32 + 6 * 8,
        cross_attention_dim=64,
    )
    vae = AutoencoderKL(
        block_out_channels=(16, 32),
        norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        sample_size=16,
        force_upcast=False,
    )
    StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=_clip_text(tokenizer, projected=False),
        text_encoder_2=_clip_text(tokenizer, projected=True),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        # Noise at every step, as the turbo models have it.
        scheduler=EulerAncestralDiscreteScheduler(beta_schedule="scaled_linear", timestep_spacing="trailing"),
    ).save_pretrained(path)


def flux(path: Path) -> None:
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    tokenizer = _clip_tokenizer()
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
    )
    vae = AutoencoderKL(
        sample_size=32,
        block_out_channels=(4,),
        layers_per_block=1,
        latent_channels=1,
        norm_num_groups=1,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.06,
        scaling_factor=1.5,
    )
    FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        text_encoder=_clip_text(tokenizer, projected=False),
        text_encoder_2=T5EncoderModel(T5Config(vocab_size=200, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4)),
        tokenizer=tokenizer,
        tokenizer_2=T5Tokenizer(vocab=[(word, 0.0) for word in ["<pad>", "</s>", "<unk>", *WORDS]]),
        transformer=transformer,
        vae=vae,
    ).save_pretrained(path)


def image_to_words(path: Path) -> None:
    """A vision encoder and a decoder of text without a processor of both: ViT and GPT-2."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        GPT2Config,
        PreTrainedTokenizerFast,
        VisionEncoderDecoderConfig,
        VisionEncoderDecoderModel,
        ViTConfig,
    )
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    vocabulary = ["<pad>", "<unk>", "<bos>", "<eos>", *WORDS]
    raw = Tokenizer(models.WordLevel({word: index for index, word in enumerate(vocabulary)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    ).save_pretrained(path)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(path)
    vision = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=16, patch_size=8
    )
    text = GPT2Config(
        vocab_size=len(vocabulary), n_embd=32, n_layer=2, n_head=2, n_positions=32, bos_token_id=2, eos_token_id=3
    )
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(vision, text)
    config.decoder_start_token_id, config.pad_token_id = 2, 0
    VisionEncoderDecoderModel(config).save_pretrained(path)


def class_unet(path: Path) -> None:
    from diffusers import DDPMScheduler, UNet2DModel

    UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        num_class_embeds=6,
        add_attention=False,
    ).save_pretrained(path / "unet")
    DDPMScheduler(num_train_timesteps=100).save_pretrained(path / "scheduler")


def clip(path: Path) -> None:
    from transformers import CLIPConfig, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    sides = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**sides, "vocab_size": 50, "max_position_embeddings": 16},
        vision_config={**sides, "image_size": 16, "patch_size": 4},
        projection_dim=24,
    )
    CLIPModel(config).save_pretrained(path)
    CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(path)


def dinov2(path: Path) -> None:
    from transformers import Dinov2Config, Dinov2Model
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    config = Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=4)
    Dinov2Model(config).save_pretrained(path)
    BitImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(path)


def siglip(path: Path) -> None:
    from transformers import SiglipConfig, SiglipModel
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    sides = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = SiglipConfig(
        text_config={**sides, "vocab_size": 50}, vision_config={**sides, "image_size": 16, "patch_size": 4}
    )
    SiglipModel(config).save_pretrained(path)
    SiglipImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(path)


def sentences(path: Path) -> None:
    """A model of sentence-transformers: BERT, mean, length 1."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    tokenizer = BertTokenizerFast(vocab={word: index for index, word in enumerate(vocabulary)}, model_max_length=40)
    tokenizer.save_pretrained(path)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=40,
    )
    BertModel(config).save_pretrained(path)
    modules = [
        ("0", "", "sentence_transformers.models.Transformer"),
        ("1", "1_Pooling", "sentence_transformers.models.Pooling"),
        ("2", "2_Normalize", "sentence_transformers.models.Normalize"),
    ]
    listed = [
        {"idx": index, "name": name, "path": place, "type": kind} for index, (name, place, kind) in enumerate(modules)
    ]
    (path / "modules.json").write_text(json.dumps(listed))
    (path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 40, "do_lower_case": False}))
    for name in ("1_Pooling", "2_Normalize"):
        (path / name).mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    (path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


def inception(path: Path) -> None:
    """`weights.pth`: of Inception, as torch saves it, for torch-fidelity's network."""
    import torch

    from privolve.adapters.local.inception import _without_init

    # The network opens only with weights, so its layers are made without it.
    network = _without_init("torch_fidelity", "feature_extractor_inceptionv3")
    kept, loading = torch.load, torch.nn.Module.load_state_dict
    torch.load = lambda *_, **__: {}
    torch.nn.Module.load_state_dict = lambda self, state, **_: None
    try:
        made = network.FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=os.devnull)
    finally:
        torch.load, torch.nn.Module.load_state_dict = kept, loading
    for module in made.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    torch.save(made.state_dict(), path / "weights.pth")


def trained(path: Path) -> None:
    """A diffusion model as a training releases it: grey images of 8 x 8 of three classes."""
    import torch

    from privolve.privacy import arrays
    from privolve.trainers.diffusion.sampling import SamplerConfig
    from privolve.trainers.diffusion.sizes import sized
    from privolve.trainers.diffusion.unet import UNet
    from privolve.trainers.model import DiffusionModel

    network = sized("tiny", image_width=8, image_height=8, channels=1, classes=3)
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: (0.2 * torch.randn(value.shape, generator=generator)).numpy()
        for name, value in UNet(network).state_dict().items()
    }
    model = DiffusionModel(
        network=network, weights=weights, parametrisation="edm", sampling=SamplerConfig(steps=3, most=10.0)
    )
    description, weights = model.saved()
    (path / "model.json").write_text(json.dumps({**description, "classes": ["ring", "bar", "dot"]}))
    (path / "model.npz").write_bytes(arrays.npz(weights))


MAKERS = {
    maker.__name__: maker
    for maker in (
        llama,
        blip,
        llava,
        image_to_words,
        sdxl,
        flux,
        class_unet,
        clip,
        dinov2,
        siglip,
        sentences,
        inception,
        trained,
    )
}


def make(name: str, path: Path) -> Path:
    """The folder, filled by the maker of that name; always with the same weights."""
    import torch

    torch.manual_seed(0)
    logging.disable(logging.WARNING)
    try:
        MAKERS[name](path)
    finally:
        logging.disable(logging.NOTSET)
    return path
