"""The Hugging Face Hub, by plain functions of ``huggingface_hub``, which go by HF_ENDPOINT, HF_HOME, HF_TOKEN, HF_HUB_OFFLINE.

    pull      a repository's model files as a local folder, their digests compared
    push      a saved folder as one commit of a repository; ``look`` says what is there before
    problems  the client's errors in a sentence

Nothing that arrives is executed; ``bundle`` reads it strictly.
"""

from reviewgen.hub.pull import pull
from reviewgen.hub.push import PushOptions, Remote, look, push, refuse_push

__all__ = ["PushOptions", "Remote", "look", "pull", "push", "refuse_push"]
