"""The hub from which timm fetches weights: asked whether it answers, before its client asks.

That client tries six times with growing pauses and a warning each, which without a network takes
more than a minute and says nothing new.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fewlabels.models.catalogue import hub_cache, is_cached

SECONDS = 10.0  # as the hub's client waits for an answer


def refuse_silence(name: str) -> None:
    """Refuse to fetch weights of timm's that are not here from a hub that does not answer.

    Raises
    ------
    ConnectionError
        It cannot be reached.
    """
    import timm
    from huggingface_hub import constants, get_session

    found: Any = timm.get_pretrained_cfg(name)
    about = asdict(found)
    if not about.get("hf_hub_id") or constants.HF_HUB_OFFLINE or is_cached(about, hub_cache()):
        return  # its client does not ask, or gives up at once
    try:
        get_session().head(constants.ENDPOINT, timeout=SECONDS)
    except Exception as error:  # of whatever web client the hub's is built on
        why = str(error) or type(error).__name__
        raise ConnectionError(f"{constants.ENDPOINT} does not answer ({why})") from error
