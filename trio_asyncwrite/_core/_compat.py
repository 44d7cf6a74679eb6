"""TEMPORARY: the old private names, over the new lifecycle."""

from __future__ import annotations

from . import _lifecycle as L, _shell
from ._phase import BROKEN, CLOSED, ENDED, ENDING, OPEN
from ._stack import begin_shutdown, fail, poll_below


class Old:
    @property
    def _phase(self):
        lc = self.lifecycle
        if lc.released:
            return CLOSED
        if lc.failure is not None:
            return BROKEN
        return {L.OPEN: OPEN, L.ENDING: ENDING, L.ENDED: ENDED}[lc.phase]

    def _refuse(self):
        self.lifecycle.refuse(self)

    def _check_open(self):
        self.lifecycle.check_write(self)

    def _check_usable(self):
        self.lifecycle.check_flush(self)

    def _begin_shutdown(self):
        return begin_shutdown(self)

    def _enter(self, phase):
        if phase is ENDED:
            self.lifecycle.end()
        elif phase is ENDING:
            self.lifecycle.phase = L.ENDING
            self.lifecycle.update()

    def _fail(self, exc):
        try:
            fail(self, exc)
        except Exception:
            pass

    def _poll_inner(self, poll, *args):
        return poll_below(self.inner, poll, *args)

    def _below(self):
        return self.lifecycle.inner

    @property
    def _room(self):
        return self.spare_capacity

    @property
    def _closing(self):
        return self.lifecycle.close

    def _claim(self, *, writing=True):
        _shell.claim(self, writing=writing)

    @property
    def _busy(self):
        return self.lifecycle.inside

    @_busy.setter
    def _busy(self, v):
        if not v:
            _shell.leave(self)

    async def _drive(self, poll, *args):
        return await _shell.drive(self, poll, *args, lift=self.lifecycle.lift_of())

    @property
    def _failure(self):
        return self.lifecycle.failure

    @_failure.setter
    def _failure(self, v):
        self.lifecycle.failure = v

    def _poll_write_buf(self, buf):
        return _shell.poll_buf(self, buf)

    def _poll_ready(self):
        self.poll_ready()

    @property
    def _released(self):
        return self.lifecycle.released

    @_released.setter
    def _released(self, v):
        self.lifecycle.released = v
        self.lifecycle.update()


async def release_once(writer, *, clean):
    pass


class _Closing:
    pass
