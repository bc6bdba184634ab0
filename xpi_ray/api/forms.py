"""What a browser's form or a command line sends beside an image.

    query string, multipart/form-data ─► fields by name

Multipart: RFC 7578. The body is cut at its boundary and never scanned line by line, so that a
large file of line ends costs no more than any other.
"""

import re
from urllib.parse import parse_qsl

from xpi_ray.errors import RequestError

MAX_FIELDS = 8
MAX_PART_HEADER_BYTES = 4096
MAX_FORM_BYTES = 2**16  # all of a form but the file in it

_BOUNDARY = re.compile(  # RFC 2046, section 5.1.1
    r""";\s*boundary=(?:"([\w'()+,./:=? -]{1,70})"|([\w'()+,./:=?-]{1,70}))\s*(?:;|$)""",
    re.ASCII | re.IGNORECASE,
)
_NAME = re.compile(
    rb"""\ncontent-disposition:[^\r\n]*?;[ \t]*name=(?:"([^"\r\n]*)"|([^\s;"]+))""", re.IGNORECASE
)


def is_form(content_type: str) -> bool:
    """Whether a Content-Type announces multipart/form-data."""
    return content_type.lower().lstrip().startswith("multipart/form-data")


def read_query(query: str) -> dict[str, str]:
    """Fields of a URL's query string.

    Raises:
        RequestError: There are too many fields, or one comes twice.
    """
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise RequestError(f"the query must have at most {MAX_FIELDS} fields") from None
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise RequestError(f"the query gives a field twice: {query[:128]!r}")
    return fields


def read_form(content_type: str, body: bytes) -> dict[str, bytes]:
    """Fields of a multipart form.

    Args:
        content_type: The header, which names the boundary.
        body: All of it.

    Raises:
        RequestError: The form is malformed or cut off, has too many fields, or one comes twice.
    """
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        raise RequestError(
            "multipart/form-data must name its boundary, of 1 to 70 characters, "
            f"got {content_type[:128]!r}"
        )
    delimiter = b"\r\n--" + (boundary[1] or boundary[2]).encode()
    _, *parts = (b"\r\n" + body).split(delimiter, MAX_FIELDS + 1)
    if not parts or not parts[-1].startswith(b"--"):
        raise RequestError(
            f"the form does not end with its boundary, or has more than {MAX_FIELDS} fields"
        )
    fields: dict[str, bytes] = {}
    for part in parts[:-1]:
        name, value = _read_part(part)
        if name in fields:
            raise RequestError(f"the form gives the field {name[:64]!r} twice")
        fields[name] = value
    return fields


def _read_part(part: bytes) -> tuple[str, bytes]:
    end = part.find(b"\r\n\r\n", 0, MAX_PART_HEADER_BYTES)
    if end < 0 or not part.startswith(b"\r\n"):
        raise RequestError("a field of the form must begin with headers and an empty line")
    name = _NAME.search(part, 0, end)
    if name is None:
        raise RequestError("a field of the form has no Content-Disposition with a name")
    return (name[1] or name[2] or b"").decode("utf-8", "replace"), part[end + 4 :]
