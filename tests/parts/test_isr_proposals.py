"""What a broker's leaders propose and report goes to the controller a turn at a time, and does not pile up."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence

from raykafka.broker.neighbourhood.controller_calls import FailedLeadership
from raykafka.broker.partitions import isr_proposals
from raykafka.broker.partitions.failed_reports import FailedReports
from raykafka.broker.partitions.isr_proposals import IsrProposals
from raykafka.cluster.image import PartitionState
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, LinkError
from raykafka.replica.rules.events import Propose
from raykafka.types import TopicPartition
from tests.lab.loop_waiting import until

_ID = uuid.UUID(int=7)
_Asked = list[tuple[TopicPartition, Propose]]


class _Controller:
    """Takes calls in order; each of ISRs is answered when the test says so."""

    def __init__(self) -> None:
        self.asked: list[_Asked] = []
        self.reported: list[list[FailedLeadership]] = []
        self.answers: list[asyncio.Future[None]] = []

    async def alter_partitions(self, proposals: Sequence[tuple[TopicPartition, uuid.UUID, Propose]]) -> list[ErrorCode]:
        assert {topic_id for _, topic_id, _ in proposals} == {_ID}
        self.asked.append([(tp, proposal) for tp, _, proposal in proposals])
        self.answers.append(asyncio.get_running_loop().create_future())
        await self.answers[-1]
        return [ErrorCode.NONE] * len(proposals)

    async def report_failed(self, leaderships: Sequence[FailedLeadership]) -> None:
        self.reported.append(list(leaderships))
        await asyncio.Event().wait()

    async def asks(self, calls: int) -> _Asked:
        """The newest call, once there were that many."""
        await until(lambda: len(self.asked) >= calls, f"{calls} calls have come")
        assert len(self.asked) == calls
        return self.asked[-1]


def _tp(partition: int) -> TopicPartition:
    return TopicPartition("t", partition)


def _isr(*members: int, version: int = 0) -> Propose:
    return Propose(members, (1,) * len(members), 4, version)


def _play(scenario: Callable[[_Controller, IsrProposals], Awaitable[None]]) -> None:
    async def run() -> None:
        controller = _Controller()
        proposals = IsrProposals(controller)
        try:
            await scenario(controller, proposals)
        finally:
            await proposals.close()

    asyncio.run(run())


def test_what_a_turn_proposes_goes_in_one_call() -> None:
    async def scenario(controller: _Controller, proposals: IsrProposals) -> None:
        for partition in range(3):
            proposals.propose(_tp(partition), _ID, _isr(1))
        proposals.propose(_tp(0), _ID, _isr(1, 2))
        assert await controller.asks(1) == [(_tp(0), _isr(1, 2)), (_tp(1), _isr(1)), (_tp(2), _isr(1))]

    _play(scenario)


def test_one_proposal_is_outstanding_and_the_newest_of_those_made_meanwhile_follows() -> None:
    async def scenario(controller: _Controller, proposals: IsrProposals) -> None:
        proposals.propose(_tp(0), _ID, _isr(1))
        await controller.asks(1)
        for follower in range(2, 300):
            proposals.propose(_tp(0), _ID, _isr(1, follower))
            proposals.propose(_tp(1), _ID, _isr(1, follower))
            await asyncio.sleep(0)
        assert len(controller.asked) == 1
        controller.answers[0].set_result(None)
        assert await controller.asks(2) == [(_tp(0), _isr(1, 299)), (_tp(1), _isr(1, 299))]

    _play(scenario)


def test_what_is_outstanding_is_not_asked_for_again_before_it_is_answered() -> None:
    async def scenario(controller: _Controller, proposals: IsrProposals) -> None:
        proposals.propose(_tp(0), _ID, _isr(1))
        await controller.asks(1)
        proposals.propose(_tp(0), _ID, _isr(1, 2))
        proposals.propose(_tp(0), _ID, _isr(1))  # back to that: the other is not wanted any more
        proposals.propose(_tp(1), _ID, _isr(1))
        controller.answers[0].set_result(None)
        assert await controller.asks(2) == [(_tp(1), _isr(1))]
        controller.answers[1].set_result(None)
        proposals.propose(_tp(0), _ID, _isr(1, version=1))
        assert await controller.asks(3) == [(_tp(0), _isr(1, version=1))]

    _play(scenario)


def test_a_leader_that_got_no_answer_proposes_again_and_is_heard() -> None:
    async def scenario(controller: _Controller, proposals: IsrProposals) -> None:
        failures: list[Exception] = [
            LinkError("the controller ended"),
            KafkaError(ErrorCode.NOT_CONTROLLER, "deposed"),
            TimeoutError(),
        ]
        for calls, failure in enumerate(failures, 1):
            proposals.propose(_tp(0), _ID, _isr(1))
            assert await controller.asks(calls) == [(_tp(0), _isr(1))]
            controller.answers[-1].set_exception(failure)
            await until(lambda: not proposals._asking, "the failure is known")
        proposals.propose(_tp(0), _ID, _isr(1))
        assert await controller.asks(len(failures) + 1) == [(_tp(0), _isr(1))]

    _play(scenario)


def test_very_many_proposals_go_in_several_calls() -> None:
    async def scenario(controller: _Controller, proposals: IsrProposals) -> None:
        for partition in range(isr_proposals.AT_ONCE + 1):
            proposals.propose(_tp(partition), _ID, _isr(1))
        assert len(await controller.asks(1)) == isr_proposals.AT_ONCE
        controller.answers[0].set_result(None)
        assert await controller.asks(2) == [(_tp(isr_proposals.AT_ONCE), _isr(1))]

    _play(scenario)


def test_leaderships_that_end_in_one_turn_are_reported_in_one_call_and_later_ones_do_not_wait_for_it() -> None:
    async def run() -> None:
        controller = _Controller()
        reports = FailedReports(controller)
        state = PartitionState((1, 2), 1, 4, (1, 2), 0)
        for partition in range(3):
            reports.report(_tp(partition), _ID, state, "its actor ended")
        await until(lambda: len(controller.reported) == 1, "the first call has come")
        reports.report(_tp(3), _ID, state, "its disk broke")
        await until(lambda: len(controller.reported) == 2, "the second call has come")
        first = [FailedLeadership(_tp(partition), _ID, 4, "its actor ended") for partition in range(3)]
        assert controller.reported == [first, [FailedLeadership(_tp(3), _ID, 4, "its disk broke")]]
        await reports.close()

    asyncio.run(run())
