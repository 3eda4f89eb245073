"""`leasehold doctor`."""

import json

from sqlalchemy import update

from cli.conftest import Run
from leasehold.service.context import Context
from leasehold.store.tables import spaces


def test_all_is_well_ends_with_0(run: Run) -> None:
    done = run("doctor")
    assert (done.exit_code, "All is well" in done.stderr) == (0, True)
    assert json.loads(run("doctor", "--json").stdout) == []


def test_what_is_wrong_is_told_with_what_to_do_and_ends_with_1(run: Run, ctx: Context) -> None:
    with ctx.db.write() as connection:
        connection.execute(update(spaces).values(free=spaces.c.free - 1))
    done = run("doctor", "--no-servers", "--json")
    (found,) = json.loads(done.stdout)
    assert (done.exit_code, found["code"], found["subject"]) == (1, "count-wrong", "mac-pools/default")
    assert found["mend"]
    assert "count-wrong" in run("doctor").stdout
