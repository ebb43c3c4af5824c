"""Prints what a fleet soak has shown."""

from rich.console import Console

from kaa_bench.fleet.run import Result

SHOWN = 10
"""Violations of a kind that are shown."""


def print_fleet(result: Result, clients: int, console: Console) -> None:
    """Print the counts, the faults, and what was promised."""
    tally = result.tally
    waits = result.presence_waits

    def line(sentence: str) -> None:
        console.print(sentence, highlight=False, soft_wrap=True)

    line(
        f"{clients:,} clients, {result.seconds:.0f} s: {tally.connects:,} connects ({tally.by_password:,} by "
        f"password, {tally.by_certificate:,} by certificate), {tally.taken_over:,} takeovers of "
        f"an open connection, {tally.aborted:,} aborted, {tally.left:,} left, {tally.cut:,} ended by a gateway, "
        f"{tally.refused:,} attempts in vain"
    )
    line(
        f"sessions: {tally.resumed:,} found again, {result.excused_losses:,} begun anew, because a worker was killed"
    )
    line(f"messages: {tally.sent:,} sent, {tally.acknowledged:,} acknowledged, {result.recorded:,} arrived")
    line(
        f"pushes: {result.recorded:,} sent, {tally.pushed:,} delivered, {tally.repeated:,} repeated before their "
        f"PUBACK; {tally.answered:,} answers"
    )
    line(
        "faults: " + ", ".join(f"{name.replace('_', ' ')} {count}x" for name, count in result.faults.items())
    )
    if waits:
        line(
            f"presence: right {len(waits)} of {result.presence_checks} times, after {max(waits):.1f} s at most"
        )
    if (
        result.excused_overlaps
        or result.excused_pushes
        or result.excused_missing
        or result.excused_unanswered
    ):
        longest = max((each.seconds for each in result.excused_overlaps), default=0.0)
        line(
            f"while a NATS server was away: {len(result.excused_overlaps)} old connections stayed, {longest:.1f} s at "
            f"most; {result.excused_pushes} pushes came again, as the extension had sent them again; "
            f"{result.excused_missing} pushes and answers did not come; {result.excused_unanswered} connections and "
            "packets had no answer in time"
        )
    worst = sorted(tally.overlaps, key=lambda each: each.seconds, reverse=True)
    for each in worst[:SHOWN]:
        line(
            f"at {each.at - result.began:.0f} s, an old connection stayed for {each.seconds * 1000:.0f} ms, at a round "
            f"trip of {each.round_trip * 1000:.0f} ms{'' if each.ended else ', and had not ended then'}"
            f"{'' if each.found else '; the session was not found'}"
        )
    for lost in tally.begun[:SHOWN]:
        line(
            f"at {lost.at - result.began:.3f} s, {lost.client} did not find its session at gateway "
            f"{lost.next_gateway}; it was connected to gateway {lost.gateway} at {lost.since - result.began:.3f} s"
        )
    for missing in tally.missing[:SHOWN]:
        line(f"the {missing.kind} to a message of {missing.sent_at - result.began:.0f} s has not come")
    for late in tally.unanswered[:SHOWN]:
        line(
            f"at {late.at - result.began:.0f} s, {late.client} had waited for {late.at - late.since:.0f} s for the "
            f"{late.awaited} of gateway {late.gateway}"
        )
    for name, times in (("QoS 2", tally.twice), ("acknowledged", tally.after_acknowledgement)):
        if times:
            line(
                f"{name} pushes came again at "
                + ", ".join(f"{at - result.began:.0f} s" for at in times[:SHOWN])
            )
    line(
        f"acknowledged and lost: {result.lost}; delivered twice at QoS 2: {len(tally.twice)}; delivered after their "
        f"acknowledgement: {len(tally.after_acknowledgement)}; old connections for more than a round trip: "
        f"{len(tally.overlaps)}; sessions not found: {len(tally.begun)}; pushes and answers missing: "
        f"{len(tally.missing)}; without an answer in time: {len(tally.unanswered)}; wrong in presence: "
        f"{len(result.presence_faults)}"
    )
