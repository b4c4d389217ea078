"""Object storage and the web as places of files, through fsspec; `storage.addresses` says which paths are meant.

drivers   the file system of an address, its errors as ours, and bounded retries
streams   one object read from start to end, whatever the network does
cache     fetched files on this machine, bounded in bytes
listing   the objects that an address or a pattern names
fetch     a file or a directory brought into the cache, checked
upload    files and committed directories, written and removed so that no half of one ever counts
outputs   an output of a command, made on this machine and uploaded when it is whole
claims    the claim of one run on an address
"""
