"""Fuzzer of the Hub's protocol: ``load`` and ``pull`` from a server that answers with anything, through the real client.

The judge is independent of the library: the tree of files around the cache before and after, what the other host was sent, the
message, the wait and the memory, and the text and score of the model against those of the folder that was published.
"""

import json
import os
import random
import select
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.hostile.frame import Fuzzer, Outcome
from tests.hostile.hub_attacks import choose_attacks, choose_files
from tests.hostile.hub_server import TOKEN, Attack, HostileHub

__all__ = ["FUZZER", "HubFuzzer"]

_MAX_MESSAGE, _MAX_WAIT, _MAX_GROWTH, _MAX_SECONDS = 500, 120, 1_000, 20
_HONEST_SHARE = 0.1  # of the cases, after which the same process loads from an honest Hub
_DEPTH = 8  # folders between the canaries and the cache, so that ../ meets canaries and not this machine
_TEXTS = ["the film was good and the end was sad", "the end of the film was not good", "a sad film with a good end"] * 4


class HubFuzzer:
    """See the module."""

    name = "hub"

    def prepare(self, folder: Path) -> None:
        self.outside = folder / "outside"
        inner = self.outside.joinpath(*"abcdefgh"[:_DEPTH])
        self._home, self._out = inner / "home", inner / "out"
        inner.mkdir(parents=True)
        for place in [self.outside, *inner.parents[: _DEPTH - 1]]:
            (place / "canary").write_text("as it was")
        self.files = _train(folder / "model")
        self._hub = HostileHub(self.files)
        self._hub.start()
        self._child: subprocess.Popen[str] | None = None
        honest = self._ask("load")
        assert "text" in honest, honest
        self._expected = {name: honest[name] for name in ("text", "evaluation")}

    def run(self, seed: int) -> Outcome:
        rng = random.Random(seed)
        action = rng.choice(["load", "pull", "revision"])
        files, attacks = choose_files(rng, self.files), choose_attacks(rng, self.outside, self.other)
        return self.attack(attacks, action=action, files=files, then_honest=rng.random() < _HONEST_SHARE)

    def attack(
        self,
        attacks: Sequence[Attack],
        *,
        action: str = "load",
        files: Mapping[str, bytes] | None = None,
        then_honest: bool = True,
    ) -> Outcome:
        """Return what comes of these attacks.

        Args:
            attacks: The attacks.
            action: "load", "pull" or "revision": ``load`` of a branch.
            files: The files of the repository, if not those of the model.
            then_honest: Whether the same process afterwards loads from an honest Hub.
        """
        self._hub.files, self._hub.attacks = dict(self.files if files is None else files), list(attacks)
        self._hub.stolen.clear()
        changed = [name for name, data in self._hub.files.items() if data != self.files.get(name)]
        case = f"{action}; " + "; ".join([*(f"{each.name} on {each.pattern or 'all'}" for each in self._hub.attacks), *changed])
        before = self._tree()
        result = self._ask(action)
        problem = self._find_problem(result, before, bool(changed))
        self._hub.attacks, self._hub.files = [], dict(self.files)
        self._clear()
        if not problem and then_honest:
            later = self._ask("load")
            problem = (
                None if later.get("text") == self._expected["text"] else f"an honest Hub was not understood any more: {later}"
            )
            self._clear()
        if problem:
            return Outcome("failed", case, problem)
        if "refused" in result:
            return Outcome("clean", case, result["refused"])
        is_same = all(result[name] == value for name, value in self._expected.items())
        return Outcome("same" if is_same else "changed", case)

    def _clear(self) -> None:
        for place in (self._home, self._out):
            shutil.rmtree(place, ignore_errors=True)

    @property
    def other(self) -> str:
        """The address of another host than the Hub."""
        return self._hub.other

    def close(self) -> None:
        self._stop_child()
        self._hub.stop()

    def _find_problem(self, result: dict[str, Any], before: dict[str, Any], is_changed: bool) -> str | None:
        if "raised" in result:
            return str(result["raised"])
        if self._hub.stolen:
            return f"the token was sent to another host: {self._hub.stolen[0]}"
        if (after := self._tree()) != before:
            return f"files outside of the cache changed: {sorted(set(after.items()) ^ set(before.items()))[:3]}"
        if leaks := [str(path) for path in self._home.rglob("*") if not path.resolve().is_relative_to(self._home.resolve())]:
            return f"the cache leads outside: {leaks[0]}"
        if result["waited"] > _MAX_WAIT or result["grown_mb"] > _MAX_GROWTH:
            return f"it waited {result['waited']:.0f} seconds and took {result['grown_mb']:.0f} MB"
        message = result.get("refused", "")
        if len(message) > _MAX_MESSAGE or "\n" in message or "Traceback" in message:
            return f"not one short sentence: {message}"
        if "text" in result and not is_changed and any(result[name] != value for name, value in self._expected.items()):
            return f"another model was accepted in silence: {result}"
        return None

    def _tree(self) -> dict[str, tuple[int, bytes]]:
        """Return the files around the cache, and the planted paths elsewhere."""
        places = [
            path for path in self.outside.rglob("*") if not path.is_relative_to(self._home) and not path.is_relative_to(self._out)
        ]
        own = {str(path): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"") for path in places}
        return own | {str(path): (0, b"") for path in map(Path, ("/tmp/planted", "/planted")) if path.exists()}

    def _ask(self, action: str) -> dict[str, Any]:
        child = self._child = self._child or self._start_child()
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps({"action": action, "out": str(self._out)}) + "\n")
        child.stdin.flush()
        ready, _, _ = select.select([child.stdout], [], [], _MAX_SECONDS if hasattr(self, "_expected") else 180)
        line = child.stdout.readline() if ready else ""
        if not line:
            status = child.poll()
            self._stop_child()
            return {"raised": f"no answer within {_MAX_SECONDS} seconds" if status is None else f"the process died: {status}"}
        result: dict[str, Any] = json.loads(line)
        return result

    def _start_child(self) -> subprocess.Popen[str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HF_", "HUGGING")) and "proxy" not in name.lower()
        }
        own = {"HF_ENDPOINT": self._hub.endpoint, "HF_HOME": str(self._home), "HF_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"}
        own |= {"HF_HUB_ETAG_TIMEOUT": "3", "HF_HUB_DOWNLOAD_TIMEOUT": "3", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        command = [sys.executable, "-m", "tests.hostile.hub_child"]
        pipe, root = subprocess.PIPE, Path(__file__).parents[2]
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=kept | own, cwd=root)

    def _stop_child(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def _train(folder: Path) -> dict[str, bytes]:
    """Return the files of a small model, trained in a process of its own so that this one stays small."""
    call = f"reviewgen.train('ngram-char', {_TEXTS!r}, out={str(folder)!r})"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "REVIEWGEN_CACHE": str(folder.parent / "cache")}
    done = subprocess.run([sys.executable, "-c", f"import reviewgen; {call}"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {file.name: file.read_bytes() for file in folder.iterdir()}


FUZZER: Fuzzer = HubFuzzer()
