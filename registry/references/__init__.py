"""Files that an artifact names instead of holding: `s3://…`, `http://…`, `file://…`.

    allowed.py   which of them the user allowed, by name; pure
    sources.py   opening one: http(s) and file, and staying where it was allowed
    fetch.py     into the cache: checked against the manifest where that is possible, pinned

Nothing is fetched that was not allowed, and redirects and links do not lead out of it.
"""
