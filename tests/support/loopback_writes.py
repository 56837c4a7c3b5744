"""The write side of the loopback Hub: what ``create_repo``, ``create_branch`` and ``upload_folder``
ask for.

As with the real Hub, large files go to a store of their own before the commit names them by digest,
plain files lie in the commit, and a commit is all or nothing. The protocol is that of git LFS: the
clients are told not to use Xet.
"""

import base64
import hashlib
import json
import re
from typing import Any

import yaml

__all__ = ["READ_TOKEN", "WriteSide"]

READ_TOKEN = "hf_loopback_read"
USER = "ana"
_PREFIXES = {"model": "", "dataset": "datasets/", "space": "spaces/"}
_SDKS = ("static", "gradio", "docker")
_COLORS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")


class WriteSide:
    """Endpoints for the handler of the loopback Hub, which has the rest: ``hub``, ``_body``,
    ``_answer_json``, ``_refuse``.
    """

    def _check_writer(self: Any) -> None:
        if self._token() is None:
            self._refuse(401, None, "Invalid username or password.")
        if self._token() == READ_TOKEN:
            self._refuse(
                403, None, "You don't have the rights to write here. Your token has the role read."
            )

    def create(self: Any) -> None:
        """``/api/repos/create``: a new repository with a first commit; 409 where there is one."""
        self._check_writer()
        wish = json.loads(self._body)
        kind = wish.get("type") or "model"
        name = f"{wish['organization'] or USER}/{wish['name']}"
        is_there = (kind, name) in self.hub.repositories
        if kind == "space" and wish.get("sdk") not in _SDKS:
            self._refuse(400, None, f"A Space needs an sdk, one of {', '.join(_SDKS)}")
        if not is_there:
            is_private = wish.get("visibility") == "private" or wish.get("private") is True
            self.hub.add(kind, name, private=is_private, sdk=wish.get("sdk"))
        answer = {"url": f"{self.hub.endpoint}/{_PREFIXES[kind]}{name}", "id": name}
        self._answer_json(
            answer | ({"error": "You already created this repo"} if is_there else {}),
            409 if is_there else 200,
        )

    def branch(self: Any, kind: str, id: str, revision: str) -> None:
        """``/api/models/owner/name/branch/<branch>``: a branch that begins where main is; 409 where
        there is one.
        """
        self._check_writer()
        repository = self._repository(kind, id)
        if revision in repository.refs:
            self._refuse(409, None, f"Reference already exists: {revision}")
        repository.refs[revision] = repository.refs["main"]
        self._answer_json({})

    def validate_yaml(self: Any) -> None:
        """``/api/validate-yaml``: whether the block of metadata of a card is YAML."""
        block = re.match(r"---\s*\n(.*?)\n---", json.loads(self._body)["content"], re.DOTALL)
        try:
            found = yaml.safe_load(block[1]) if block else None
        except yaml.YAMLError as error:
            self._answer_json({"errors": [{"message": str(error)}], "warnings": []}, 400)
            return
        empty = (
            []
            if isinstance(found, dict)
            else [{"message": "empty or missing yaml metadata in repo card"}]
        )
        self._answer_json({"errors": [], "warnings": empty})

    def preupload(self: Any, kind: str, id: str, revision: str) -> None:
        """``/api/models/owner/name/preupload/<revision>``: how each file is to come, and what is
        there under its name.
        """
        self._check_writer()
        _, commit = self._commit(kind, id, revision)
        files = []
        for file in json.loads(self._body)["files"]:
            there = commit.files.get(file["path"])
            oid = None
            if there is not None:
                oid = there.sha256 if there.is_lfs else there.oid
            mode = "lfs" if self.hub.is_large(file["path"]) else "regular"
            files.append(
                {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}
            )
        self._answer_json({"files": files})

    def lfs_batch(self: Any, kind: str, id: str) -> None:
        """``/owner/name.git/info/lfs/objects/batch``: where each large file is to be put; nowhere
        if its digest is known.
        """
        self._check_writer()
        self._repository(kind, id)
        objects = []
        for wish in json.loads(self._body)["objects"]:
            oid = wish["oid"]
            put = {
                "upload": {"href": f"{self.hub.store}/upload/{oid}"},
                "verify": {"href": f"{self.hub.endpoint}/lfs-verify"},
            }
            objects.append(wish | ({} if self.hub.blob(oid) else {"actions": put}))
        self._answer_json({"transfer": "basic", "objects": objects})

    def lfs_upload(self: Any, sha256: str) -> None:
        """Where a large file is put, on the store."""
        if hashlib.sha256(self._body).hexdigest() != sha256:
            self._refuse(400, None, "The content does not match its digest")
        self.hub.uploads[sha256] = self._body
        self._answer(b"")

    def lfs_verify(self: Any) -> None:
        """``verify`` of an upload: whether it has arrived."""
        wish = json.loads(self._body)
        data = self.hub.uploads.get(wish["oid"])
        if data is None or len(data) != wish["size"]:
            self._refuse(404, None, "The object is not there")
        self._answer_json({})

    def _check_space(self: Any, readme: str) -> None:
        """Refuse a Space whose settings, the metadata of its README.md, are not those of one."""
        block = re.match(r"---\s*\n(.*?)\n---", readme, re.DOTALL)
        settings = yaml.safe_load(block[1]) if block else {}
        if settings.get("sdk") not in _SDKS:
            self._refuse(400, None, '"sdk" must be one of static, gradio, docker')
        if any(settings.get(name, "red") not in _COLORS for name in ("colorFrom", "colorTo")):
            self._refuse(400, None, f'"colorFrom" must be one of {", ".join(_COLORS)}')
        if len(settings.get("short_description", "")) > 60:
            self._refuse(
                400,
                None,
                '"short_description" length must be less than or equal to 60 characters long',
            )

    def commit(self: Any, kind: str, id: str, revision: str) -> None:
        """``/api/models/owner/name/commit/<revision>``: a header and operations, a JSON object a
        line; all or nothing.
        """
        self._check_writer()
        repository, parent = self._commit(kind, id, revision)
        files = {path: blob.data for path, blob in parent.files.items()}
        lines = [json.loads(line) for line in self._body.splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit", parent.sha) != parent.sha:
            self._refuse(412, None, "A commit has happened since. Please refresh and try again.")
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                data = self.hub.blob(value["oid"])
                if data is None:
                    self._refuse(400, None, f"The large file {value['path']} was not uploaded")
                files[value["path"]] = data
            elif line["key"] == "deletedFile":
                if files.pop(value["path"], None) is None:
                    self._refuse(404, "EntryNotFound", "A file with this name doesn't exist")
            elif line["key"] != "header":
                self._refuse(400, None, f"unknown operation {line['key']}")
        if kind == "space":
            self._check_space(files.get("README.md", b"").decode())
        number = 1 + sum(name.startswith("refs/pr/") for name in repository.refs)
        is_pr = self._query.get("create_pr") == "1"
        made = repository.commit(
            f"refs/pr/{number}" if is_pr else revision, files, header["summary"]
        )
        url = f"{self.hub.endpoint}/{_PREFIXES[kind]}{id}/commit/{made.sha}"
        facts = {"success": True, "commitOid": made.sha, "commitUrl": url}
        self._answer_json(
            facts
            | (
                {"pullRequestUrl": f"{self.hub.endpoint}/{id}/discussions/{number}"}
                if is_pr
                else {}
            )
        )
