"""The commands about jobs and queues, as processes against a real server."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import Shell


def test_a_job_is_created_shown_listed_and_counted(jobwire: Shell) -> None:
    made = jobwire(
        *("create", '{"to": "ann"}', "--type", "mail", "--queue", "q1", "--priority", "2"),
        *("--label", "team=a", "--user", "ann", "--output", "json"),
    )
    assert made.code == 0, made.err
    job_id = made.json["id"]
    got = jobwire("get", job_id, "--output", "json").json
    assert got["payload"]["text"] == '{"to": "ann"}'
    assert (got["type"], got["queue"], got["priority"]) == ("mail", "q1", 2)
    assert (got["labels"], got["userId"]) == ({"team": "a"}, "ann")
    assert [job["id"] for job in jobwire("list", "--queue", "q1", "--output", "json").lines] == [job_id]
    assert jobwire("count", "--queue", "q1", "--output", "json").json == {"counts": {"QUEUED": 1}, "total": 1}
    table = jobwire("list", "--queue", "q1")
    assert table.out.split()[:3] == ["ID", "QUEUE", "TYPE"]
    assert job_id in table.out
    assert "\x1b" not in table.out


def test_the_payload_comes_from_a_file_or_from_standard_input(jobwire: Shell) -> None:
    (jobwire.folder / "payload").write_bytes(b"\xff\x00")
    by_file = jobwire("create", "@payload").out.strip()
    by_stdin = jobwire("create", "-", stdin="line\n").out.strip()
    shown = jobwire("get", by_file, by_stdin, "--output", "json").lines
    assert [each["payload"].get("text", each["payload"].get("data")) for each in shown] == ["/wA=", "line\n"]
    missing = jobwire("create", "@none")
    assert missing.code == 2
    assert "none: No such file" in missing.err


def test_the_same_request_twice_makes_one_job_and_another_content_is_a_conflict(jobwire: Shell) -> None:
    first = jobwire("create", "a", "--request-id", "r1").out
    assert jobwire("create", "a", "--request-id", "r1").out == first
    assert jobwire("create", "b", "--request-id", "r1").code == 5
    assert jobwire("create", "a", "--id", "mine").out == "mine\n"
    taken = jobwire("create", "b", "--id", "mine")
    assert taken.code == 5
    assert "jobwire get" in taken.err


def test_the_process_ends_with_the_same_code_and_words(jobwire: Shell) -> None:
    made = jobwire.process("create", "--output", "json")
    assert made.code == 0
    assert jobwire.process("get", made.json["id"], "--output", "json").json["id"] == made.json["id"]
    missing = jobwire.process("get", "none")
    assert (missing.code, missing.out) == (4, "")
    assert "Traceback" not in missing.err


def test_list_goes_through_all_pages_up_to_its_limit(jobwire: Shell) -> None:
    for _ in range(3):
        jobwire("create", "--queue", "pages")
    assert len(jobwire("list", "--queue", "pages", "--limit", "2", "--output", "json").lines) == 2
    assert "there may be more" in jobwire("list", "--queue", "pages", "--limit", "2").err
    assert len(jobwire("list", "--queue", "pages", "--all", "--output", "json").lines) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["get", "none"], 4, "jobwire list"),
        (["why", "none"], 4, "there is no job"),
        (["update", "none", "--priority", "1"], 4, "there is no job"),
        (["update", "none"], 2, "nothing to change"),
        (["cancel", "none"], 4, "there is no job"),
        (["retry", "none"], 4, "there is no job"),
        (["delete", "none"], 4, "there is no job"),
        (["delete"], 2, "either ids, or a filter"),
        (["delete", "none", "--queue", "q"], 2, "either ids, or a filter"),
        (["pause", "none"], 4, "jobwire queues"),
        (["resume", "none"], 4, "jobwire queues"),
        (["create", "--schedule", "tomorrow"], 2, "in 10m"),
        (["create", "--schedule", "2030-01-01T00:00:00"], 2, "no time zone"),
        (["create", "--label", "x"], 2, "KEY=VALUE"),
        (["create", "--queue", "not a name"], 2, "queue"),
        (["list", "--state", "lost"], 2, "--state"),
        (["recover", "--stuck-for", "long"], 2, "no duration"),
        (["creat"], 2, "Did you mean 'create'?"),
        (["work", "--exec", "no-such-command"], 2, "no such command"),
        (["get", "x", "--address", "127.0.0.1:1", "--timeout", "0.5"], 3, "jobwire serve"),
    ],
)
def test_a_refusal_has_its_exit_code_and_says_what_to_do(
    jobwire: Shell, arguments: list[str], code: int, says: str
) -> None:
    ran = jobwire(*arguments)
    assert (ran.code, ran.out) == (code, "")
    assert says in ran.err
    assert "Traceback" not in ran.err


def test_a_job_is_edited_canceled_replayed_and_deleted(jobwire: Shell) -> None:
    job_id = jobwire("create", "--schedule", "in 1h").out.strip()
    edited = jobwire("update", job_id, "--priority", "1", "--schedule", "now", "--output", "json").json
    assert (edited["priority"], edited["state"]) == (1, "JOB_STATE_QUEUED")
    assert jobwire("update", job_id, "--priority", "2", "--etag", "other").code == 5
    refused = jobwire("retry", job_id)
    assert refused.code == 5
    assert f"jobwire why {job_id}" in refused.err
    assert jobwire("cancel", job_id, "--reason", "enough").out == f"{job_id}  CANCELED\n"
    assert "enough" in jobwire("why", job_id).out
    assert jobwire("retry", job_id, "--output", "json").json["state"] == "JOB_STATE_QUEUED"
    gone = jobwire("delete", "none", job_id)
    assert (gone.code, gone.out) == (4, f"{job_id}  deleted\n")


def test_by_filter_nothing_happens_without_a_yes(jobwire: Shell) -> None:
    jobwire("create", "--queue", "many")
    jobwire("create", "--queue", "many")
    assert jobwire("delete", "--queue", "many", "--dry-run").out == "would delete 2 jobs\n"
    asked = jobwire("delete", "--queue", "many")
    assert asked.code == 2
    assert "this would delete 2 jobs: say --yes" in asked.err
    done = jobwire("cancel", "--queue", "many", "--limit", "1", "--yes", "--output", "json").json
    assert done == {"verb": "cancel", "count": 1, "dryRun": False}
    assert jobwire("delete", "--queue", "many", "--yes").out == "2 jobs deleted\n"


def test_recover_tells_that_nothing_is_stuck(jobwire: Shell) -> None:
    assert jobwire("recover", "--dry-run").out == "no job is stuck\n"
    assert jobwire("recover", "--output", "json").json["counts"]["requeued"] == 0


def test_a_queue_is_paused_and_resumed_and_why_says_so(jobwire: Shell) -> None:
    first = jobwire("create", "--queue", "line").out.strip()
    second = jobwire("create", "--queue", "line").out.strip()
    assert jobwire("why", first, "--output", "json").json["reasons"] == ["NO_FREE_WORKER"]
    assert jobwire("pause", "line").code == 0
    assert [q["name"] for q in jobwire("queues", "--output", "json").lines if q.get("paused")] == ["line"]
    told = jobwire("why", second, "--output", "json").json
    assert told["reasons"] == ["QUEUE_PAUSED", "JOBS_AHEAD"]
    assert "1 job is ahead of it" in told["now"]
    assert "jobwire resume line" in told["next"]
    assert jobwire("resume", "line").out == "line is not paused\n"
    later = jobwire("create", "--queue", "line", "--schedule", "in 1h").out.strip()
    assert jobwire("why", later, "--output", "json").json["reasons"] == ["SCHEDULED"]


def test_a_wait_that_is_too_short_has_its_own_exit_code(jobwire: Shell) -> None:
    ran = jobwire("create", "--queue", "nobody", "--wait", "--wait-timeout", "200ms")
    assert ran.code == 8
    assert "jobwire why" in ran.err


def test_what_a_user_wrote_gives_no_orders_to_the_terminal(jobwire: Shell) -> None:
    job_id = jobwire("create", "a\x1b[2Jb", "--type", "t\x1b[2J").out.strip()
    assert "\x1b" not in jobwire("get", job_id).out + jobwire("list").out


def test_a_setting_comes_from_the_flag_then_the_environment_then_toml(jobwire: Shell, tmp_path: Path) -> None:
    def source(**environment: str) -> tuple[str, str]:
        shown = jobwire("config", "show", "--output", "json", **environment).lines
        return next((each["value"], each["source"]) for each in shown if each["name"] == "timeout")

    assert source() == ("5.0", "default")
    (tmp_path / "jobwire.toml").write_text('timeout = 7\naddress = "127.0.0.1:1"\n')
    assert source() == ("7", "jobwire.toml")
    assert source(JOBWIRE_TIMEOUT="9") == ("9", "JOBWIRE_TIMEOUT")
    assert jobwire("count").code == 0, "the environment has the address"
    elsewhere = jobwire("count", JOBWIRE_ADDRESS="", JOBWIRE_TIMEOUT="0.5")
    assert elsewhere.code == 3
    assert "127.0.0.1:1" in elsewhere.err
    address = jobwire.environment["JOBWIRE_ADDRESS"]
    assert jobwire("count", "--address", address, JOBWIRE_ADDRESS="").code == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("adress = 'x'", "did you mean address?"),
        ("zzz = 1", "known are address, "),
        ("timeout = 'soon'", "timeout: 'soon'"),
        ("timeout =", "Invalid value"),
    ],
)
def test_toml_that_cannot_be_is_refused_with_its_file(jobwire: Shell, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    ran = jobwire("count", JOBWIRE_CONFIG="mine.toml")
    assert ran.code == 2
    assert "mine.toml: " in ran.err
    assert says in ran.err


@pytest.mark.parametrize("output", ["text", "json"])
@pytest.mark.parametrize(
    "url",
    [
        "redis://ann:{}@127.0.0.1/0",
        "redis+sentinel://ann:{}@a:1,b:2/jobs?sentinel_username=bob&sentinel_password={}&prefix=x",
    ],
)
def test_config_show_masks_passwords(jobwire: Shell, output: str, url: str) -> None:
    ran = jobwire("config", "show", "--output", output, JOBWIRE_STORE=url.format("hunter2", "hunter2"))
    assert url.format("***", "***") in ran.out
    assert "hunter2" not in ran.out
