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
