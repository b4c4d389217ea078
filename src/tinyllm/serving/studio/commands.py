"""The same text from a shell, from Python and by curl: commands that a person can copy from the page.

A command has no key and no part of a text that a shell would read as its own: shlex, repr and JSON quote everything.
"""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinyllm.config import SamplingConfig
from tinyllm.loading import is_model
from tinyllm.model_dir import bundled_model
from tinyllm.serving.models import ServedModel

KEY_HEADER = '"Authorization: Bearer $TINYLLM_API_KEY"'
DEFAULTS = SamplingConfig()
CURL_NAMES = {"max_new_tokens": "max_tokens"}
"""Name of a setting in Python -> its name in the API, where they differ."""


def equivalent(
    model: ServedModel, ids: Sequence[int], sampling: SamplingConfig, server: str, *, needs_key: bool
) -> dict[str, str]:
    """The commands `shell`, `python` and `curl` that continue the prompt `ids` by `sampling`.

    `server` is the address of this server. The prompt is a text wherever the text has the same ids.
    """
    prompt = _prompt(model, ids)
    settings = _changed(sampling)
    python = _python(model, prompt, settings)
    return {
        "shell": _shell(model, prompt, settings) or f"python -c {shlex.quote(python)}",
        "python": python,
        "curl": _curl(model, prompt, settings, server, needs_key=needs_key),
    }


def _prompt(model: ServedModel, ids: Sequence[int]) -> str | list[int]:
    """The text that is encoded to `ids`, or `ids` if no text is."""
    tokenizer = model.tokenizer
    text = tokenizer.decode(ids)
    return text if tokenizer.encode(text, bos=tokenizer.begins_with_bos) == list(ids) else list(ids)


def _changed(sampling: SamplingConfig) -> dict[str, Any]:
    """The length, the seed, and the settings that differ from the default."""
    fixed = ("max_new_tokens", "seed")
    fields = sampling.model_dump()
    return {name: fields[name] for name in fields if name in fixed or fields[name] != getattr(DEFAULTS, name)}


def _python(model: ServedModel, prompt: str | list[int], settings: dict[str, Any]) -> str:
    path = "" if _is_bundled(model) else repr(str(model.path))
    loading = ", ".join(filter(None, [path, *(f"{name}={each!r}" for name, each in model.generator.settings.items())]))
    arguments = ", ".join([repr(prompt), *(f"{name}={value!r}" for name, value in settings.items())])
    lines = (
        "import tinyllm",
        "",
        f"model = tinyllm.load({loading})",
        f"text = model.generate({arguments})[0]",
        "print(text.prompt + text.text)",
    )
    return "\n".join(lines)


def _shell(model: ServedModel, prompt: str | list[int], settings: dict[str, Any]) -> str | None:
    """The command `tinyllm generate`; None for a prompt that it would read in another way."""
    if isinstance(prompt, list) or not _is_plain(prompt) or (_is_bundled(model) and is_model(prompt)):
        return None
    words = ["tinyllm", "generate"]
    if not _is_bundled(model):
        path = str(model.path)
        words.append(f"./{path}" if path.startswith(("-", "~")) else path)
    words.append(prompt or _flag("unconditional"))
    for name, value in (*settings.items(), *model.generator.settings.items()):
        words.append(f"{_flag(name)}={value}")
    return shlex.join(words)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _is_plain(prompt: str) -> bool:
    """Whether `tinyllm generate` takes `prompt` from its arguments unchanged."""
    if prompt and (not prompt.strip() or prompt.startswith(("-", "FILE:", "\ufeff", "~"))):
        return False
    return not set(prompt) & {"\r", "\0"}


def _curl(
    model: ServedModel, prompt: str | list[int], settings: dict[str, Any], server: str, *, needs_key: bool
) -> str:
    body = {"model": model.name, "prompt": prompt}
    body |= {CURL_NAMES.get(name, name): value for name, value in settings.items()}
    key = f" -H {KEY_HEADER}" if needs_key else ""
    address, content = shlex.quote(f"{server}/v1/completions"), shlex.quote(json.dumps(body))
    return f"curl -s {address} -H 'Content-Type: application/json'{key} -d {content}"


def _is_bundled(model: ServedModel) -> bool:
    return model.path is not None and Path(model.path) == bundled_model()
