"""Loading from the Hugging Face Hub and publishing on it, with the functions of
``huggingface_hub``. The environment variables HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE
apply.

    download  finds the folder of a model: a preset's weights, a local folder, or a download;
              ``reviewgen pull`` and ``search``; errors of the Hub's client
    card      writes and parses the model card; its template is card.md.j2
    scan      generates texts, and finds what blocks publishing
    publish   ``push_to_hub``: check, scan, card, upload; the Space with the model's page

Downloaded files are never executed; ``reviewgen.saving`` reads them strictly.
"""

from reviewgen.hub.card import brief_facts, is_written_by_hand, metadata_of
from reviewgen.hub.scan import find_personal_data

__all__ = ["brief_facts", "find_personal_data", "is_written_by_hand", "metadata_of"]
