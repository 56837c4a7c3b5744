"""The Hugging Face Hub, by the plain functions of ``huggingface_hub``; HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE apply.

    locate    the folder of a model: a preset's weights, a repository or a local folder
    tree      checks the list of a repository's files before any is downloaded
    download  downloads a repository's model files and compares their digests
    pull      ``reviewgen pull``: download, read, copy to a folder
    push      uploads a saved folder as one commit
    publish   ``push_to_hub``: scan, card, upload
    privacy   finds personal data in generated texts
    problems  the client's errors as one sentence

Nothing that is downloaded is executed; ``bundle`` reads it strictly.
"""

from reviewgen.hub.privacy import check_kinds, find_personal_data

__all__ = ["check_kinds", "find_personal_data"]
