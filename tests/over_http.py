"""Questions to a running API over HTTP, whatever it answers."""

import json
import urllib.error
import urllib.request
from typing import Any


def answered(request: urllib.request.Request | str, timeout: float) -> tuple[int, Any]:
    """The status and the JSON of an answer, a refusal's too."""
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def asked_by(token: str, purpose: str, url: str, body: Any = None) -> tuple[int, Any]:
    """The status and the JSON of what the holder of a token is answered, who says what for; with a body it is posted."""
    headers = {"Authorization": f"Bearer {token}", "X-Purpose": purpose}
    data = None if body is None else json.dumps(body).encode()
    return answered(urllib.request.Request(url, data, headers), 60)
