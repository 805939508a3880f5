"""`ensemble serve`: answer HTTP requests with a model."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ensemble.cli.terminal import console
from ensemble.cli.terminal.options import EXECUTION

if TYPE_CHECKING:
    from ensemble.serving.model import ServedModel

ADDRESS, LIMITS = "Address", "Limits"


def serve(
    what: Annotated[
        str,
        typer.Argument(
            help="an exported model (folder or .zip), a checkpoint, a run or a blend", metavar="MODEL|CKPT|RUN|BLEND"
        ),
    ],
    host: Annotated[
        str, typer.Option(help="address to listen on; 0.0.0.0 is every address", metavar="A", rich_help_panel=ADDRESS)
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one", metavar="N", rich_help_panel=ADDRESS)] = 8000,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            help="further name that requests may have in the header Host (can be given again)",
            metavar="NAME",
            rich_help_panel=ADDRESS,
        ),
    ] = None,
    device: Annotated[
        str, typer.Option("--device", "--devices", help="auto, cpu, or a GPU number", rich_help_panel=EXECUTION)
    ] = "auto",
    batch: Annotated[
        int, typer.Option(help="images predicted together, at most", metavar="N", rich_help_panel=EXECUTION)
    ] = 32,
    wait_ms: Annotated[
        float,
        typer.Option(
            help="milliseconds that an image waits for others of its batch", metavar="MS", rich_help_panel=EXECUTION
        ),
    ] = 5.0,
    queue: Annotated[
        int,
        typer.Option(help="images at work; further requests get 503", metavar="N", rich_help_panel=LIMITS),
    ] = 256,
    max_images: Annotated[int, typer.Option(help="images per request", metavar="N", rich_help_panel=LIMITS)] = 32,
    max_body: Annotated[float, typer.Option(help="MiB per request", metavar="MIB", rich_help_panel=LIMITS)] = 64.0,
    max_pixels: Annotated[
        int, typer.Option(help="height × width of the largest image", metavar="N", rich_help_panel=LIMITS)
    ] = 50_000_000,
    timeout: Annotated[
        float, typer.Option(help="seconds from a complete request to its answer", metavar="S", rich_help_panel=LIMITS)
    ] = 30.0,
    upload_timeout: Annotated[
        float, typer.Option(help="seconds for the upload of a request", metavar="S", rich_help_panel=LIMITS)
    ] = 30.0,
    connections: Annotated[int, typer.Option(help="open connections", metavar="N", rich_help_panel=LIMITS)] = 256,
) -> int:
    """Answer HTTP requests with a model, until Ctrl-C or SIGTERM.

    POST /predict takes images (multipart, or base64 in JSON) and returns classes with probabilities and uncertainty; a
    model for people takes all images of one person at /predict-person.
    Open the printed address in a browser to drop an image on a page. /docs describes the interface; /health and
    /metrics are for the operator. One line per request is logged, without names of files. Requests in flight are
    answered before the end.
    """
    from folds.utils.startup import lasting_imports

    with lasting_imports():
        from ensemble.serving.face import serve as run_server
        from ensemble.serving.limits import Limits
        from folds.errors import EnsembleError

    limits = Limits(
        batch=batch,
        wait_ms=wait_ms,
        queue=queue,
        max_images=max_images,
        max_body=max_body,
        max_pixels=max_pixels,
        timeout=timeout,
        upload_timeout=upload_timeout,
        connections=connections,
    )

    def ready(url: str, model: ServedModel) -> None:
        record = {"url": url, "name": model.name, "classes": list(model.classes), **model.describe()}
        with contextlib.suppress(OSError, EnsembleError):  # a full or closed standard output ends no server
            console.result(f"{model.name} answers at {url}", record)
        call = model.needs.example.replace("URL", url) if model.needs else f"curl -F images=@photo.jpg {url}/predict"
        console.next_step(f"{call}, or open {url} in a browser; Ctrl-C stops")

    run_server(
        what,
        host=host,
        port=port,
        device=device,
        allow_hosts=allow_host or (),
        limits=limits,
        root=Path(),
        ready=ready,
    )
    return 0
