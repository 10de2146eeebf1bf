# SPDX-License-Identifier: BSD-3-Clause
"""What a NIDS has on the host: its rules in the data plane, and the way of its alerts to a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TextIO

from hummingbird import logs
from hummingbird.dataplane._native import ffi, lib
from hummingbird.errors import UserError
from hummingbird.nfs import HostContext, NfHost
from hummingbird.nfs.nids_eve import Alert, EveWriter

if TYPE_CHECKING:
    from hummingbird.nfs.nids import Loaded, NidsParams

RING = 16384
"""Alerts that may wait on an lcore until poll() takes them."""
AT_ONCE = 4096


class NidsHost(NfHost):
    """The host part of one instance."""

    def __init__(self, params: NidsParams, loaded: Loaded, context: HostContext) -> None:
        """Hand the rules over and open the file."""
        self._name = context.name
        self._loaded = loaded
        self._file = self._open(params, context)
        self._writer = EveWriter(loaded.compiled.rules, context.nodes)
        self._alerts = ffi.new("hb_nids_alert[]", AT_ONCE)
        on_alert = {"pass": lib.HB_NIDS_PASS, "drop": lib.HB_NIDS_DROP}.get(params.on_alert)
        if on_alert is None:
            on_alert = lib.HB_NIDS_RETYPE + context.types[params.on_alert]
        self.pointer = loaded.compiled.open(
            on_alert=on_alert,
            assume=params.handshake == "assumed",
            alert_rate=params.alert_rate,
            most_alerts=params.packet_alerts,
            ring=RING,
        )

    def _open(self, params: NidsParams, context: HostContext) -> TextIO | None:
        if params.eve is None:
            return None
        path = context.base / params.eve
        try:
            return open(path, "a", encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"{path} cannot be written: {error.strerror}",
                field=f"nfs.{context.name}.eve",
                fix="name a file that can be written",
            ) from None

    def poll(self) -> None:
        """Write the alerts that have come up."""
        while taken := lib.hb_nids_take(self.pointer, self._alerts, AT_ONCE):
            if self._file:
                self._write(self._writer.lines(Alert.of(self._alerts[i]) for i in range(taken)))

    def _write(self, text: str) -> None:
        """Into the file; once it cannot be written, no more."""
        assert self._file is not None
        try:
            self._file.write(text)
            self._file.flush()
        except OSError as error:
            name, self._file = self._file.name, None
            raise UserError(
                f"{name}: {error.strerror}; no more alerts are written",
                fix="make room on that disk, then start again",
            ) from None

    def counters(self) -> dict[str, int]:
        """hb_nids_counters by name."""
        counters = ffi.new("hb_nids_counters *")
        lib.hb_nids_count(self.pointer, counters)
        fields = ffi.typeof("hb_nids_counters").fields
        return {name: int(getattr(counters, name)) for name, _ in fields}

    def report(self) -> dict[str, Any]:
        """Rules and counters."""
        return {
            "rules": len(self._loaded.compiled.rules),
            "skipped": self._loaded.skipped,
            **self.counters(),
        }

    def close(self) -> None:
        """Write what is left and how many alerts were not written."""
        if self.pointer == ffi.NULL:
            return
        try:
            self.poll()
            if self._file:
                self._write(self._writer.stats(self.counters(), self._suppressed()))
        except UserError as error:
            fix = "make room on the disk of eve:"
            logs.failed("alerts_lost", self._name, error, fix=fix, subject=self._name)
        self._warn()
        if self._file:
            self._file.close()
        lib.hb_nids_free(self.pointer)
        self.pointer = ffi.NULL

    def _suppressed(self) -> list[int]:
        counts = ffi.new("uint64_t[]", len(self._loaded.compiled.rules))
        lib.hb_nids_suppressed(self.pointer, counts)
        return list(counts)

    def _warn(self) -> None:
        counters = self.counters()
        if counters["lost"]:
            logs.warning(
                "alerts_lost",
                f"{self._name}: {counters['lost']} alerts came too fast to be written",
                fix="a threshold in the rules that alert most",
                subject=self._name,
                count=counters["lost"],
            )
        if counters["gave_up"]:
            logs.warning(
                "rules_gave_up",
                f"{self._name}: {counters['gave_up']} times a rule took too long and was taken "
                "for not matching",
                fix="regular expressions that backtrack less",
                subject=self._name,
                count=counters["gave_up"],
            )
