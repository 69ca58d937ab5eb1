"""The gateway as a server: OpenAI's protocol on loopback, `model` naming a role, for programs that are not ours.

What they ask gets the cache, the retries, the limits and the budget that a job gets, by changing one URL.

Inputs are public by declaration. Inside privolve a type says what may be private, and the gateway refuses it to remote
roles; over HTTP there is no type, only bytes. So a client of this server declares by using it that what it sends may be
kept in the shared cache and seen by whoever runs the role's model. A prompt is usually written by the program itself;
an image usually comes from a data set, and captioning is the very step at which a private record meets a model. Sending
private images here would undo the guarantee of every certificate made of them, in silence. Therefore images are
refused unless the server was started with `--inputs-are-public`. Private images are captioned by a job, whose ledger
and certificate then know of it.

The extra `serve` (FastAPI, uvicorn) is imported by `app` alone.
"""
