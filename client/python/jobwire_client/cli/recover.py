"""`jobwire recover`."""

from __future__ import annotations

from datetime import timedelta

import click

from jobwire_client.cli import show
from jobwire_client.cli.call import Call, calls_server
from jobwire_client.cli.values import duration

OUTCOMES = ("requeued", "scheduled", "failed", "canceled")


@click.command("recover")
@click.option("--queue", "queues", multiple=True, metavar="QUEUE", help="Of this queue only; may be repeated.")
@click.option("--stuck-for", type=duration, metavar="DURATION", help="Also from living workers, held longer than this.")
@click.option("--max-retries", type=click.IntRange(min=0), help="Fail those with more interruptions than this.")
@click.option("--initial-delay", type=duration, metavar="DURATION", help="Let all of them wait first, then longer.")
@click.option("--limit", type=click.IntRange(1, 1000), help="The most to take back.")
@click.option("--dry-run", is_flag=True, help="Say what would happen, and change nothing.")
@calls_server
def recover_command(
    call: Call,
    *,
    queues: tuple[str, ...],
    stuck_for: timedelta | None,
    max_retries: int | None,
    initial_delay: timedelta | None,
    limit: int | None,
    dry_run: bool,
) -> None:
    """Take jobs back whose worker has fallen silent.

    Servers do so by themselves, a little later.

    \b
    jobwire recover --dry-run
    jobwire recover --queue mail --stuck-for 2h
    """
    ids: dict[str, list[str]] = {outcome: [] for outcome in OUTCOMES}
    counts = dict.fromkeys(OUTCOMES, 0)
    with call.client() as client:
        while True:
            answer = client.recover(
                queues=queues,
                stuck_for=stuck_for,
                max_retries=max_retries,
                initial_delay=initial_delay,
                max_jobs=limit or 0,
                validate_only=dry_run,
            )
            for outcome in OUTCOMES:
                ids[outcome] += getattr(answer, f"{outcome}_ids")
                counts[outcome] += getattr(answer, f"{outcome}_count")
            if not answer.more or limit is not None or dry_run:  # a dry run finds the same ones again
                break
    if call.is_json:
        show.line({"dryRun": dry_run, "more": answer.more, "counts": counts, "ids": ids})
        return
    show.table(("ID", "BECOMES"), [(job_id, outcome) for outcome in OUTCOMES for job_id in ids[outcome]])
    told = ", ".join(f"{count:,} {outcome}" for outcome, count in counts.items() if count) or "no job is stuck"
    click.echo(("would be: " if dry_run and any(counts.values()) else "") + told + ("; there are more" * answer.more))
