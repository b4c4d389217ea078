"""The flags of the commands that serve over HTTP: where the server listens, and who may ask."""

import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tinyllm import text_input
from tinyllm.addresses import opened_address, shown
from tinyllm.cli.paths import expand_home
from tinyllm.errors import ArgumentsError, InputError, UsageError

if TYPE_CHECKING:
    from tinyllm.serving.security import Access

KEY_LIMIT_BYTES = 4096


@Parameter(name="*")
@dataclass(frozen=True)
class ServerOptions:
    """Address and access of a server."""

    host: Annotated[str, Parameter(help="Address to listen on; any but loopback needs a key.")] = "127.0.0.1"
    port: Annotated[int, Parameter(help="Port to listen on; 0 = a free one.")] = 8080
    api_key: Annotated[str | None, Parameter(help="Key that every request needs.", show_default=False)] = None
    api_key_file: Annotated[Path | None, Parameter(help="File with the key; other users cannot see it.")] = None
    allowed_host: Annotated[
        tuple[str, ...], Parameter(help="Further name of this server, as in the Host header.", negative="")
    ] = ()
    allow_origin: Annotated[
        tuple[str, ...],
        Parameter(help="Origin of web pages that may use the server, such as https://chat.example.", negative=""),
    ] = ()

    def access(self, bound: socket.socket, key: str | None) -> "Access":
        """The rules for users of the socket. Raises UsageError if other machines can reach it and there is no key."""
        from tinyllm.serving.security import access, is_loopback  # loads the web framework

        if key is None and not is_loopback(bound.getsockname()[0]):
            raise UsageError(
                f"--host {self.host} can be reached from other machines, so a key is needed; add --api-key-file FILE"
            )
        return access(self.host, key, self.allowed_host, self.allow_origin)

    def read_key(self) -> str | None:
        """The key of --api-key or --api-key-file. Raises ArgumentsError for both, InputError for an unusable one."""
        key = self.api_key
        if key is not None and self.api_key_file is not None:
            raise ArgumentsError("--api-key and --api-key-file are two ways to give the key; use one")
        if self.api_key_file is not None:
            key = text_input.read_file(expand_home(self.api_key_file), KEY_LIMIT_BYTES).strip()
        if key is not None and (not key or not key.isascii() or not key.isprintable() or " " in key):
            raise InputError("the API key should be one word of ASCII characters; choose another")
        return key


def check_slots(max_slots: int, max_queue: int) -> None:
    """Raises UsageError for numbers of texts that no server can have."""
    if max_slots < 1 or max_queue < 0:
        raise UsageError(f"--max-slots is {max_slots} and --max-queue {max_queue}; at least 1 and 0 are needed")


def check_folder(folder: Path) -> None:
    """Raises InputError if `folder` is no folder, UsageError for an address."""
    if opened_address(folder) is not None:
        raise UsageError(f"{shown(folder)} is an address; name a folder of this machine, with a copy of the run")
    if not folder.is_dir():
        raise InputError(f"{folder} is a file, not a folder" if folder.exists() else f"{folder} does not exist")


def end_process(*, all_ended: bool) -> None:
    """Ends the process at once if threads of the server still work; returns if `all_ended`.

    Python's own end takes the interpreter from under a thread that compiles or runs PyTorch, which may abort.
    """
    if all_ended:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
