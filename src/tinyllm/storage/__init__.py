"""Writes, renames and removes all files: a committed output is whole, and foreign files are never touched.

disk      one small function for each change on the disk, with the hook for crash tests
drafts    private folders in which an output is made, marked and locked
commit    an output takes its name in one step
manifest  the list of files of a committed directory, read by `json_stream` and verified by `entries`
logs      one JSON object a line
locks     locks that die with their holder
temporary files without a name, which end with their process
checks    may this path be written, is there room, would something be lost
"""

from tinyllm.storage.checks import (
    check_new_file,
    check_replaceable,
    check_room,
    check_writable,
    follow_link,
    free_bytes,
    is_text,
    keeps_reserve,
    nearest_folder,
)
from tinyllm.storage.commit import (
    append_file,
    commit_directory,
    commit_file,
    publish_file,
    remove_directory,
    set_aside,
    write_file,
    write_json,
)
from tinyllm.storage.drafts import (
    Draft,
    drafts_in,
    drafts_of,
    empty_draft,
    hold,
    open_draft,
    remove_dead_drafts,
    remove_dead_drafts_of,
)
from tinyllm.storage.entries import STAMPS_NAME, Check, FileEntry, sha256_of
from tinyllm.storage.locks import (
    LOCK_NAME,
    check_free,
    exclusive,
    has_lock_text,
    is_locked,
    seems_locked,
    wait_for_lock,
)
from tinyllm.storage.logs import JsonLines, read_json_lines
from tinyllm.storage.manifest import (
    MANIFEST_NAME,
    Manifest,
    find_entry,
    leave_out,
    read_manifest,
    read_manifest_text,
    scan_manifest,
    verify,
)
from tinyllm.storage.temporary import map_temporary

__all__ = [
    "LOCK_NAME",
    "MANIFEST_NAME",
    "STAMPS_NAME",
    "Check",
    "Draft",
    "FileEntry",
    "JsonLines",
    "Manifest",
    "append_file",
    "check_free",
    "check_new_file",
    "check_replaceable",
    "check_room",
    "check_writable",
    "commit_directory",
    "commit_file",
    "drafts_in",
    "drafts_of",
    "empty_draft",
    "exclusive",
    "find_entry",
    "follow_link",
    "free_bytes",
    "has_lock_text",
    "hold",
    "is_locked",
    "is_text",
    "keeps_reserve",
    "leave_out",
    "map_temporary",
    "nearest_folder",
    "open_draft",
    "publish_file",
    "read_json_lines",
    "read_manifest",
    "read_manifest_text",
    "remove_dead_drafts",
    "remove_dead_drafts_of",
    "remove_directory",
    "scan_manifest",
    "seems_locked",
    "set_aside",
    "sha256_of",
    "verify",
    "wait_for_lock",
    "write_file",
    "write_json",
]
