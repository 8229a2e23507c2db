"""The gateway as a process: what it listens on, what it reads again every few seconds, and how it ends."""

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn

from pipeline.addresses import is_loopback
from pipeline.bounded_http import BoundedHttp
from pipeline.certificate import Certificate, certificate_of
from pipeline.errors import UserError
from pipeline.event_loop import run
from pipeline.gateway.admission import Admission
from pipeline.gateway.app import Gateway
from pipeline.gateway.devices import Devices
from pipeline.gateway.known_venues import KnownVenues
from pipeline.gateway.metrics import GatewayMetrics
from pipeline.gateway.outbox import CONFIRM_SECONDS, Outbox
from pipeline.gateway.quotas import Quotas
from pipeline.gateway.recent import Recent
from pipeline.listening import bound_socket
from pipeline.privacy.master import open_master
from pipeline.privacy.pseudonyms import Pseudonymiser
from pipeline.settings import Settings
from pipeline.topics import CHECK_INS
from pipeline.venue_codes import VenueCodes

log = logging.getLogger(__name__)

#: How often keys, devices, venues and the certificate are read again, in seconds: a destroyed key is gone from memory then.
REFRESH_SECONDS: Final = 5.0


def open_pseudonymiser(settings: Settings) -> Pseudonymiser:
    """The pseudonymiser of these settings. Raises UserError, also where there is no key for now."""
    pseudonymiser = Pseudonymiser(settings.keys_path, lambda: open_master(settings))
    now = time.time_ns() // 1_000_000
    if pseudonymiser.covered_until(now) == now:
        raise UserError(f"the ring in {settings.keys_path} has no key for the present; run: pipeline keys rotate")
    return pseudonymiser


def open_codes(settings: Settings) -> VenueCodes | None:
    """What judges venue codes, if the settings name keys for it. Raises UserError."""
    return None if settings.venue_code_keys is None else VenueCodes(settings.venue_code_keys, settings.venue_codes)


def open_venues(settings: Settings) -> KnownVenues | None:
    """The venues that there are, if the settings name their file. Raises UserError."""
    return None if settings.gateway_venues is None else KnownVenues(settings.gateway_venues)


class _Server(uvicorn.Server):
    """uvicorn's own would raise the signal again when it has served, and so end us before what is under way is confirmed."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


def serve_gateway(settings: Settings, say: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM, then finish what is under way. Raises UserError for what is wrong at the start."""
    _check_exposure(settings)
    run(_serve(settings, say))


async def _serve(settings: Settings, say: Callable[[str], None]) -> None:
    pseudonymiser, codes, venues = open_pseudonymiser(settings), open_codes(settings), open_venues(settings)
    devices = None if settings.gateway_devices is None else Devices(settings.gateway_devices)
    certificate = certificate_of(settings.gateway_certificate, settings.gateway_certificate_key)
    metrics = GatewayMetrics()
    outbox = Outbox(settings.kafka_access, CHECK_INS, settings.gateway_pending, metrics.kafka_failures.inc)
    device_rate, venue_rate, burst = (
        settings.gateway_device_rate,
        settings.gateway_venue_rate,
        settings.gateway_burst_seconds,
    )
    gateway = Gateway(
        Admission(settings, pseudonymiser, codes, venues),
        outbox,
        devices,
        Quotas(device_rate, device_rate * burst),
        Quotas(venue_rate, venue_rate * burst),
        metrics,
        pseudonymiser.covered_until,
        Recent(),
    )
    config = uvicorn.Config(
        gateway,
        log_config=None,
        access_log=False,  # an address may hold what its sender should not have put there
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        ws="none",
        http=BoundedHttp,
        backlog=2048,
        timeout_graceful_shutdown=int(CONFIRM_SECONDS) + 2,
    )
    config.load()
    # Not by uvicorn's own settings: it reads a certificate once, and gateways live longer than certificates.
    config.ssl = None if certificate is None else certificate.context
    server = _Server(config)
    listening = bound_socket(settings.gateway_host, settings.gateway_port, "PIPELINE_GATEWAY")
    await outbox.start()
    parts = [pseudonymiser.refresh, *(part.refresh for part in (devices, codes, venues) if part is not None)]
    tasks = [asyncio.create_task(_refresh(parts, certificate, metrics)), asyncio.create_task(_watch_bodies(gateway))]
    scheme = "http" if certificate is None else "https"
    say(f"taking scans at {scheme}://{settings.gateway_host}:{listening.getsockname()[1]}/v1/scans until Ctrl-C")
    try:
        await server.serve([listening])
    finally:
        for task in tasks:
            task.cancel()
        await outbox.close()
        listening.close()


async def _refresh(parts: list[Callable[[], None]], certificate: Certificate | None, metrics: GatewayMetrics) -> None:
    while True:
        await asyncio.sleep(REFRESH_SECONDS)
        for part in parts:
            with _failures_told(metrics):
                await asyncio.to_thread(part)
        if certificate is not None:
            # Not beside the loop: chain and key are replaced one after the other, and no handshake may fall in between.
            with _failures_told(metrics):
                certificate.renew()


@contextmanager
def _failures_told(metrics: GatewayMetrics) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        metrics.refresh_failures.inc()
        log.warning("%s; going on with what was read before", error)


async def _watch_bodies(gateway: Gateway) -> None:
    while True:
        await asyncio.sleep(1)
        gateway.give_up_on_slow_bodies()


def _check_exposure(settings: Settings) -> None:
    if is_loopback(settings.gateway_host):
        return
    if settings.gateway_devices is None:
        raise UserError(
            f"the gateway would take scans from anybody at {settings.gateway_host}: set PIPELINE_GATEWAY_DEVICES "
            "(pipeline gateway add-device), or listen on loopback"
        )
    if settings.gateway_certificate is None:
        raise UserError(
            f"identifiers would go to {settings.gateway_host} in clear: set PIPELINE_GATEWAY_CERTIFICATE and "
            "PIPELINE_GATEWAY_CERTIFICATE_KEY, or listen on loopback behind a proxy that speaks TLS"
        )
    if settings.venue_codes == "optional" and settings.gateway_venues is None:
        raise UserError(
            f"the gateway would take any venue_id from {settings.gateway_host}, and a phone number sent as one goes to Kafka in "
            "clear: set PIPELINE_VENUE_CODES=required with PIPELINE_VENUE_CODE_KEYS (pipeline venues signing-key), or "
            "PIPELINE_GATEWAY_VENUES to the registry's file, or listen on loopback"
        )
