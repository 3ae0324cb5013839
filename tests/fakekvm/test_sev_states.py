"""Any sequence of SEV commands on two guests, beside a table of states written down here."""

from __future__ import annotations

from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.fakekvm import sevraw
from tests.fakekvm.sevraw import (
    BAD_MEASUREMENT,
    INVALID_STATE,
    LAUNCHING,
    OK,
    RECEIVING,
    RUNNING,
    SECRET,
    SENDING,
    SENT,
    UNASKED,
    UNINIT,
    Machine,
    SevGuest,
    Wire,
)

# command: the one state that it is allowed in, and the state after it
TABLE = {
    "launch_update": (LAUNCHING, LAUNCHING),
    "measure": (LAUNCHING, SECRET),
    "launch_finish": (SECRET, RUNNING),
    "send_start": (RUNNING, SENDING),
    "send_finish": (SENDING, SENT),
    "send_cancel": (SENDING, RUNNING),
    "receive_finish": (RECEIVING, RUNNING),
}
NUMBERS = {
    "launch_finish": sevraw.LAUNCH_FINISH,
    "send_finish": sevraw.SEND_FINISH,
    "send_cancel": sevraw.SEND_CANCEL,
    "receive_finish": sevraw.RECEIVE_FINISH,
}
PAGES = 2
WHICH = st.integers(0, 1)
PAGE_NUMBERS = st.integers(0, PAGES - 1)


class Model:
    """What one guest should be: its state, its pages as it reads them, and its session."""

    def __init__(self, guest: SevGuest) -> None:
        self.guest = guest
        self.state = UNINIT
        self.pages: list[bytes | None] = [None] * PAGES
        self.session: int | None = None  # which one it sends or receives in


class TwoGuests(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine()
        self.models = [Model(SevGuest(self.machine, PAGES).init()) for _ in range(2)]
        self.sessions: list[bytes] = []
        self.wires: list[tuple[int, bytes | None, Wire]] = []  # session, contents, bytes
        self.written = 0

    def teardown(self) -> None:
        self.machine.__exit__()

    def expected(self, model: Model, *states: int) -> sevraw.Answer:
        """Without a handle the VM has no /dev/sev either."""
        if model.state == UNINIT:
            return ("EBADF", UNASKED)
        return OK if model.state in states else INVALID_STATE

    @initialize(begun=st.sampled_from(["nothing", "sending", "both"]))
    def begin(self, begun: str) -> None:
        """Chance alone would seldom come as far as a packet that arrives."""
        if begun != "nothing":
            self.launch_start(0)
            self.launch_update(0, 0)
            self.measure(0)
            self.step(0, "launch_finish")
            self.send_start(0)
            self.send(0, 0)
        if begun == "both":
            self._receive_start(self.models[1], 0)

    @rule(which=WHICH)
    def launch_start(self, which: int) -> None:
        model = self.models[which]
        answer = model.guest.launch_start()
        if model.state == UNINIT:
            assert answer == OK
            model.state = LAUNCHING
        else:
            assert answer == ("EIO", 0x0C)  # its ASID is taken, by itself

    @rule(which=WHICH, page=PAGE_NUMBERS)
    def launch_update(self, which: int, page: int) -> None:
        model = self.models[which]
        expected = self.expected(model, LAUNCHING)
        if expected == OK:
            self.written += 1
            content = self.written.to_bytes(4, "little") * 1024
            model.guest.write(page, content)
            model.pages[page] = content
        assert model.guest.launch_update(page, 1) == expected

    @rule(which=WHICH)
    def measure(self, which: int) -> None:
        model = self.models[which]
        expected = self.expected(model, LAUNCHING)
        assert model.guest.measure() == expected
        self._after(model, expected, "measure")

    @rule(which=WHICH, name=st.sampled_from(sorted(NUMBERS)))
    def step(self, which: int, name: str) -> None:
        model = self.models[which]
        expected = self.expected(model, TABLE[name][0])
        assert model.guest.issue(NUMBERS[name]) == expected
        self._after(model, expected, name)

    def _after(self, model: Model, answer: sevraw.Answer, name: str) -> None:
        if answer == OK:
            model.state = TABLE[name][1]

    @rule(which=WHICH)
    def send_start(self, which: int) -> None:
        model = self.models[which]
        expected = self.expected(model, RUNNING)
        answer, session = model.guest.send_start()
        assert answer == expected
        self._after(model, expected, "send_start")
        if answer == OK:
            model.session = len(self.sessions)
            self.sessions.append(session)

    @rule(which=WHICH, page=PAGE_NUMBERS)
    def send(self, which: int, page: int) -> None:
        model = self.models[which]
        expected = self.expected(model, SENDING)
        wire = model.guest.send(page)
        if isinstance(wire, Wire):
            assert expected == OK
            assert model.session is not None
            self.wires.append((model.session, model.pages[page], wire))
        else:
            assert wire == expected

    @precondition(lambda self: self.sessions)
    @rule(which=WHICH, data=st.data())
    def receive_start(self, which: int, data: st.DataObject) -> None:
        model = self.models[which]
        self._receive_start(model, data.draw(st.integers(0, len(self.sessions) - 1)))

    def _receive_start(self, model: Model, number: int) -> None:
        answer = model.guest.receive_start(self.sessions[number])
        if model.state == UNINIT:
            assert answer == OK
            model.state, model.session = RECEIVING, number
        else:
            assert answer == ("EIO", 0x0C)

    @precondition(lambda self: self.wires)
    @rule(
        which=WHICH,
        page=PAGE_NUMBERS,
        flip=st.none() | st.none() | st.integers(0, 8 * 4148 - 1),
        data=st.data(),
    )
    def receive(self, which: int, page: int, flip: int | None, data: st.DataObject) -> None:
        model = self.models[which]
        session, content, wire = data.draw(st.sampled_from(self.wires))
        expected = self.expected(model, RECEIVING)
        if expected == OK and (flip is not None or session != model.session):
            expected = BAD_MEASUREMENT
        assert model.guest.receive(wire if flip is None else wire.flipped(flip), page) == expected
        event(f"received: {expected}")
        if expected == OK:
            model.pages[page] = content

    @invariant()
    def states_and_contents_are_those_of_the_model(self) -> None:
        for model in self.models:
            if model.state == UNINIT:
                assert model.guest.state() == ("EBADF", UNASKED)
                continue
            assert model.guest.state() == model.state
            for page, content in enumerate(model.pages):
                assert content is None or model.guest.view(page) == content


TestTwoGuests = TwoGuests.TestCase
TestTwoGuests.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
