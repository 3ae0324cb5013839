"""``kvmenc probe``: what this host's KVM can do, and how quick its firmware is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kvmenc.cli.backend import backend_option, carried, record_options, wished_record
from kvmenc.cli.common import Seconds, console, emit_json, json_option, option, progress

if TYPE_CHECKING:
    from kvmenc.backend import Backend
    from kvmenc.cli.backend import Replay
    from kvmenc.firmware import Certificates
    from kvmenc.probe.firmware import FirmwareMeasure
    from kvmenc.probe.result import Probe
    from kvmenc.scratchrun import BackendName

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  kvmenc probe
  kvmenc probe --self-test
  kvmenc probe --self-test --record sev-host.recording
  kvmenc probe --self-test --backend replay:sev-host.recording
  kvmenc probe --json | jq '.verdicts[] | select(.answer == "no")'
  kvmenc probe --measure-firmware --pdh pdh.cert --plat-cert cert_chain.cert \\
      --amd-cert ask_ark.cert
"""

_SECONDS = 10.0
_CERTIFICATE = click.Path(path_type=Path)


@click.command(epilog=_EXAMPLES)
@backend_option
@record_options
@option("--self-test", is_flag=True, help="Run scratch guests and check their dirty logs.")
@option(
    "--measure-firmware",
    "firmware",
    is_flag=True,
    help="Instead: send one scratch SEV guest to another here, and say how quick that is.",
)
@option(
    "--seconds",
    type=Seconds(0.1, 3600),
    show_default="10",
    help="How long to measure the firmware.",
)
@option("--pdh", type=_CERTIFICATE, metavar="FILE", help="This host's PDH certificate.")
@option("--plat-cert", "plat", type=_CERTIFICATE, metavar="FILE", help="Its PEK, OCA and CEK.")
@option("--amd-cert", "amd", type=_CERTIFICATE, metavar="FILE", help="AMD's ASK and ARK.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    backend: BackendName | Replay | None,
    record: Path | None,
    record_contents: bool,
    self_test: bool,
    firmware: bool,
    seconds: float | None,
    pdh: Path | None,
    plat: Path | None,
    amd: Path | None,
    as_json: bool,
) -> None:
    """List what this host's KVM says of itself, and what follows for dirty and private pages.

    Nothing on the host is changed: ioctls are tried on a scratch VM, with NULL arguments. Exit
    status 1 if a check of the self-test fails, 3 if there is no KVM.

    With --measure-firmware two scratch SEV guests are made for some seconds, and other guests that
    use the firmware meanwhile are slowed. The certificates are those of this host, as AMD's
    `sevtool --pdh_cert_export` and `--get_ask_ark` write them. Exit status 1 if a page arrived
    changed, 3 if there is no SEV, 4 if the certificates are not good.
    """
    files = (pdh, plat, amd)
    wished = wished_record(record, contents=record_contents)
    if not firmware and (seconds is not None or any(files)):
        raise click.UsageError("--seconds and certificates go with --measure-firmware")
    if firmware and self_test:
        raise click.UsageError("--self-test goes without --measure-firmware")
    if firmware:
        from kvmenc.probe.firmware import open_sev_backend  # noqa: PLC0415 - slow to import

        with carried(backend or "local", wished, open_sev_backend) as carrier:
            result: FirmwareMeasure | Probe = _firmware(carrier, files, seconds)
    else:
        from kvmenc.probe.result import open_backend  # noqa: PLC0415

        with carried(backend or "local", wished, open_backend) as carrier:
            result = _probe(carrier, self_test)
    _show(result, as_json)
    ctx.exit(0 if result.passed else 1)


def _probe(carrier: Backend, self_test: bool) -> Probe:
    from kvmenc.backend.kinds import machine_root  # noqa: PLC0415 - slow to import
    from kvmenc.probe.result import probe  # noqa: PLC0415

    with progress("probing", 1) as update, machine_root(carrier) as root:
        return probe(carrier, root=root, self_test=self_test, update=update)


def _firmware(
    carrier: Backend,
    files: tuple[Path | None, Path | None, Path | None],
    seconds: float | None,
) -> FirmwareMeasure:
    from kvmenc.backend.kinds import machine_root, seen  # noqa: PLC0415 - slow to import
    from kvmenc.probe.firmware import measure_firmware, require_sev  # noqa: PLC0415

    require_sev(carrier)
    certificates = _certificates(carrier, files)
    # A replay measures as long as was measured when it was recorded.
    long = seen(carrier, "--seconds", lambda: seconds or _SECONDS)
    with progress("measuring the firmware", long) as update, machine_root(carrier) as root:
        return measure_firmware(carrier, certificates, seconds=long, root=root, update=update)


def _show(result: FirmwareMeasure | Probe, as_json: bool) -> None:
    from kvmenc.probe.result import Probe  # noqa: PLC0415
    from kvmenc.report.firmware import print_firmware  # noqa: PLC0415
    from kvmenc.report.probe import print_probe  # noqa: PLC0415

    if as_json:
        emit_json(result)
    elif isinstance(result, Probe):
        print_probe(result, console())
    else:
        print_firmware(result, console())


def _certificates(
    carrier: Backend, files: tuple[Path | None, Path | None, Path | None]
) -> Certificates:
    """The user's; those of a fake platform, or of a recording, are at hand."""
    from kvmenc.firmware import load_certificates  # noqa: PLC0415
    from kvmenc.probe.firmware import known_certificates  # noqa: PLC0415

    pdh, plat, amd = files
    if pdh and plat and amd:
        return load_certificates(pdh, plat, amd)
    own = None if any(files) else known_certificates(carrier)
    if own is None:
        missing = [
            option
            for option, file in zip(("--pdh", "--plat-cert", "--amd-cert"), files, strict=True)
            if file is None
        ]
        raise click.UsageError(f"--measure-firmware needs {', '.join(missing)} too")
    return own
