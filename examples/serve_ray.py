"""Serve models with Ray Serve: the application of ``reviewgen serve``, in as many processes and on
as many machines as you like.

    pip install 'reviewgen[ray,serve]'
    python examples/serve_ray.py lstm-word mine=./my-model --replicas 2    # until Ctrl-C

On a cluster, the same application from Ray's own command; each replica loads the models, so folders
must be on every machine:

    serve run examples.serve_ray:build models=lstm-word,ana/music-reviews replicas=8

The server keeps no state, so a replica is an independent copy. Ray asks each one whether its
engines run (``check_health``) and replaces it if they do not; a request goes to the replica that
has the fewest.
"""

import argparse
import time

from ray import serve
from ray.serve import Application

__all__ = ["build"]


def build(options: dict[str, str]) -> Application:
    """Return the application for ``serve run``.

    Args:
        options: ``models``: sources or NAME=SOURCE, separated by commas; ``replicas``: how many
            copies (1); ``cpus``: how many processors a replica has (1).

    Raises:
        ValueError: An option is unknown, or a model is not named as it should be.
    """
    from reviewgen.serving.options import ServerOptions, name_sources

    if unknown := options.keys() - {"models", "replicas", "cpus"}:
        raise ValueError(
            f"{', '.join(sorted(unknown))} is not an option; there are models, replicas and cpus."
        )
    sources = name_sources(
        [given.strip() for given in options.get("models", "lstm-word").split(",")]
    )
    given = ServerOptions(sources=sources)

    def create():
        """Load the models and return the application: Ray calls this in each replica."""
        from reviewgen.serving.app import create_app
        from reviewgen.serving.server import load_engines

        return create_app(load_engines(given), limits=given.limits)

    @serve.deployment(
        name="reviewgen",
        num_replicas=int(options.get("replicas", "1")),
        ray_actor_options={"num_cpus": float(options.get("cpus", "1"))},
        max_ongoing_requests=given.limits.max_rows
        + given.limits.max_waiting,  # beyond this the application would answer 429 itself
        health_check_period_s=5,
        graceful_shutdown_timeout_s=given.limits.shutdown_seconds,
    )
    @serve.ingress(create)
    class Reviewgen:
        """One replica: the application, and the answer to Ray's health checks."""

        async def check_health(self) -> None:
            if stopped := self.app.state.service.stopped:
                raise RuntimeError(f"The engine of {', '.join(stopped)} has stopped.")

    return Reviewgen.bind()


def main() -> None:
    """Serve from a Ray of this machine, or of the cluster that RAY_ADDRESS names, until Ctrl-C."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument(
        "models", nargs="+", help="presets, folders or owner/name on the Hub; NAME=MODEL names one"
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen at")
    parser.add_argument("--port", type=int, default=8000, help="the port")
    parser.add_argument("--replicas", default="1", help="how many copies")
    parser.add_argument(
        "--cpus", default="1", help="how many processors a replica has; a fraction shares one"
    )
    given = parser.parse_args()
    serve.start(http_options={"host": given.host, "port": given.port})
    try:
        serve.run(
            build(
                {"models": ",".join(given.models), "replicas": given.replicas, "cpus": given.cpus}
            )
        )
        print(
            f"Serving {', '.join(given.models)} at http://{given.host}:{given.port}/v1 until"
            " Ctrl-C.",
            flush=True,
        )
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        pass
    finally:
        serve.shutdown()


if __name__ == "__main__":
    main()
