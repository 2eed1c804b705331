"""Parse the texts and images of a request body. The client states the type of each input; it is never guessed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from vl2v.web.faults import ApiError, bad_image, schema, too_large
from vl2v.web.images import DATA_URI, from_base64
from vl2v.web.limits import Limits

FIELDS = frozenset({"model", "input", "modality", "encoding_format", "dimensions", "output_dimension", "user"})
TOKENS = (
    "Lists of token ids are not supported, since every model has its own tokens; send texts as strings. In LangChain:"
    " OpenAIEmbeddings(check_embedding_ctx_length=False). In LiteLLM, LlamaIndex and others: pass str, not list[int]."
)
FORMS = 'a string, {"text": ..}, {"image": ..}, or {"content": [one part]}'


@dataclass(frozen=True)
class Text:
    """A text to embed."""

    text: str


@dataclass(frozen=True)
class Picture:
    """The bytes of an image file, not yet validated."""

    data: bytes


@dataclass(frozen=True)
class Link:
    """The URL of an image, not yet fetched."""

    url: str


Item = Text | Picture | Link


@dataclass(frozen=True)
class ParsedRequest:
    """The parsed body of an embedding request.

    Attributes:
        items: the inputs in their order, at least one.
        base64: whether embeddings are returned as base64 of little-endian float32, or else as numbers.
    """

    items: list[Item]
    base64: bool

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.items) - self.texts

    @property
    def texts(self) -> int:
        """Number of texts."""
        return sum(isinstance(item, Text) for item in self.items)


def parse(body: bytes, model: str, dimension: int, limits: Limits) -> ParsedRequest:
    """Parse the body of `POST /v1/embeddings`.

    Args:
        body: JSON as bytes.
        dimension: D, the only permitted value of `dimensions`.

    Raises:
        ApiError: 400 for an image that is not base64, 404 for another model, 413 for a request that is too large, and
            422 for any other fault.
    """
    fields = _fields(body)
    if not isinstance(fields["model"], str):
        raise schema("Expected a string.", "model")
    if fields["model"] != model:
        raise ApiError(404, "model_not_found", f"Unknown model; this service has {model}.", param="model")
    encoding = _one_of(fields, "encoding_format", ("float", "base64"))
    modality = _one_of(fields, "modality", ("text", "image"))
    for name in ("dimensions", "output_dimension"):  # LiteLLM sends the second to infinity
        size = fields.get(name)
        if size is not None and (isinstance(size, bool) or size != dimension):
            raise schema(f"This model has {dimension} dimensions and no others; omit this field.", name)
    if not isinstance(fields.get("user", ""), str):
        raise schema("Expected a string.", "user")
    inputs = fields["input"]
    values = [inputs] if isinstance(inputs, str) else inputs
    if not isinstance(values, list) or not values:
        raise schema(f"Expected a string, or a list of at least one input; each is {FORMS}.", "input")
    if all(isinstance(value, int | list) for value in values):
        raise schema(TOKENS, "input", "token_ids")
    if len(values) > limits.inputs + limits.texts:
        raise _too_many(limits, len(values))
    reader = _Reader(modality, limits)
    parsed = ParsedRequest([reader.item(value, f"input[{i}]") for i, value in enumerate(values)], encoding == "base64")
    if parsed.images > limits.inputs or parsed.texts > limits.texts:
        raise _too_many(limits, len(values))
    return parsed


def _too_many(limits: Limits, count: int) -> ApiError:
    expected = f"at most {limits.inputs} images and {limits.texts} texts"
    return schema(f"Expected {expected} in a request, found {count} inputs; send several requests.", "input")


def _fields(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body)
    except RecursionError:
        raise schema("The body is nested too deeply.") from None
    except ValueError:  # also raised for invalid UTF-8 and for numbers with thousands of digits
        raise schema("The body is not JSON in UTF-8.") from None
    if not isinstance(fields, dict):
        raise schema("Expected a JSON object with model and input.")
    if unknown := len(fields.keys() - FIELDS):
        raise schema(f"Found {unknown} unknown field(s); known are {', '.join(sorted(FIELDS))}.")
    for name in ("model", "input"):
        if name not in fields:
            raise schema(f"'{name}' is missing.", name)
    return fields


def _one_of(fields: dict[str, Any], name: str, choices: tuple[str, str]) -> str:
    value = fields.get(name)
    if value is None:
        return choices[0]
    if not isinstance(value, str) or value not in choices:
        raise schema(f"Expected {choices[0]} or {choices[1]}.", name)
    return value


class _Reader:
    """A parser of single inputs."""

    def __init__(self, modality: str, limits: Limits) -> None:
        self._modality, self._limits = modality, limits

    def item(self, value: Any, param: str) -> Item:
        """Parse one element of `input`. The type of a plain string is `modality`, by default text."""
        if isinstance(value, str):
            return self._uri(value, param) if self._modality == "image" else self._text(value, param)
        if isinstance(value, dict) and len(value) == 1:
            ((kind, content),) = value.items()
            if kind == "text":
                return self._text(content, f"{param}.text")
            if kind == "image":
                return self._image(content, f"{param}.image")
            if kind == "content" and isinstance(content, list) and len(content) == 1:
                return self._part(content[0], f"{param}.content[0]")
        raise schema(f"Expected {FORMS}; an input is one text or one image.", param)

    def _part(self, part: Any, param: str) -> Item:
        if isinstance(part, dict) and len(part) == 2:
            link = part.get("image_url")
            if part.get("type") == "text" and "text" in part:
                return self._text(part["text"], f"{param}.text")
            if part.get("type") == "image_url" and isinstance(link, dict) and set(link) == {"url"}:
                return self._uri(link["url"], f"{param}.image_url.url")
        shapes = '{"type": "text", "text": ..} or {"type": "image_url", "image_url": {"url": ..}}'
        raise schema(f"Expected {shapes}.", param)

    def _text(self, value: Any, param: str) -> Text:
        if not isinstance(value, str) or not value:
            raise schema("Expected a text of at least one character.", param)
        if len(value) > (most := self._limits.text_characters):
            raise too_large(f"Expected at most {most} characters, found {len(value)}.", param, "text_too_long")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise schema("The text contains half of a surrogate pair, which is not a character.", param) from None
        return Text(value)

    def _uri(self, value: Any, param: str) -> Item:
        if not isinstance(value, str):
            raise schema("Expected a string: a data URI of an image.", param)
        if not value.startswith(("data:", "http://", "https://")):
            raise bad_image(DATA_URI, param)
        return self._image(value, param)

    def _image(self, value: Any, param: str) -> Item:
        """Parse an image given as data URI, URL or base64. Base64 has no colon, so the three cannot be confused."""
        if not isinstance(value, str):
            raise schema("Expected a string: base64 of an image file, or a data URI.", param)
        if value.startswith(("http://", "https://")):
            return Link(value)
        return Picture(from_base64(value, param, self._limits))
