"""The meter: billed once if answered, not if failed, never above the quota; on SQLite and on PostgreSQL."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select
from vendor_serving import PRICE, free_port

from vl2v.errors import ConfigError
from vl2v.teacher.base import Price
from vl2v.vendor_server.accounts import Account, Accounts
from vl2v.vendor_server.database import accounts, answers, bills, metadata, open_database
from vl2v.vendor_server.keys import Locked
from vl2v.vendor_server.meter import Meter, Once, Reservation
from vl2v.vendor_server.money import to_nano, written
from vl2v.web.faults import ApiError

POSTGRESQL = [pytest.mark.system, pytest.mark.xdist_group("postgresql")]


def pg_binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    return found[-1].parent if found else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A PostgreSQL of this test's own, on a free port; it refuses to run as root, so another user is taken then."""
    programs = pg_binaries()
    if programs is None:
        pytest.skip("PostgreSQL is not installed under /usr/lib/postgresql")
    import pwd  # only POSIX has it

    user = "postgres" if os.getuid() == 0 else None
    if user is not None and user not in {entry.pw_name for entry in pwd.getpwall()}:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    folder = Path(tempfile.mkdtemp())  # not under pytest's folders, which are for their owner alone
    if user is not None:
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
    data, port = folder / "data", free_port()
    setup = [str(programs / "initdb"), "-D", str(data), "-U", "seller", "--auth=trust", "--no-sync"]
    subprocess.run(setup, check=True, user=user, cwd=folder, capture_output=True)
    serve = [str(programs / "postgres"), "-D", str(data), "-p", str(port), "-k", str(folder), "-h", "127.0.0.1"]
    process = subprocess.Popen(serve, user=user, cwd=folder, stderr=subprocess.DEVNULL)
    url = f"postgresql://seller@127.0.0.1:{port}/postgres"
    try:
        for _ in range(200):
            try:
                open_database(url).dispose()
                break
            except ConfigError:
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=POSTGRESQL)])
def books(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    url = f"sqlite:///{tmp_path}/books.sqlite" if request.param == "sqlite" else request.getfixturevalue("postgres")
    engine = open_database(url)
    assert engine.dialect.name == request.param
    yield engine
    engine.dispose()


def account(books: Engine, quota: str | None = None, price: Price = PRICE) -> Account:
    return Accounts(books).create("one", price, quota=quota)[0]


def admitted(meter: Meter, who: Account, request: str, images: int = 1, once: Once | None = None) -> Reservation:
    held = meter.admit(who, request, images, 0, once)
    assert isinstance(held, Reservation)
    return held


def count(books: Engine, who: Account) -> tuple[int, int, int]:
    """Bills, their images, and their money."""
    with books.connect() as read:
        sums = select(func.count(), func.coalesce(func.sum(bills.c.images), 0), func.sum(bills.c.cost_nano))
        row = read.execute(sums.where(bills.c.account == who.id)).one()
    return row[0], int(row[1]), int(row[2] or 0)


def name(who: Account, number: int) -> str:
    return f"{who.id}{number:016x}"


def test_answered_is_billed_and_failed_is_not(books: Engine) -> None:
    who, meter = account(books), Meter(books)
    meter.settle(meter.admit(who, name(who, 1), 3, 2, None), b"{}")  # type: ignore[arg-type]
    meter.release(admitted(meter, who, name(who, 2)))
    assert count(books, who) == (1, 3, to_nano("0.002", "cost"))
    now = Accounts(books).get(who.id)
    assert (now.images, now.texts, now.requests, written(now.spent_nano)) == (3, 2, 1, "0.002")


def test_what_is_being_worked_on_counts_against_the_quota(books: Engine) -> None:
    who, meter = account(books, quota="0.0018"), Meter(books)  # three images
    first, second = (admitted(meter, who, name(who, i)) for i in range(2))
    with pytest.raises(ApiError) as caught:
        meter.admit(who, name(who, 2), 2, 0, None)
    assert caught.value.status == 402
    meter.release(first)
    third = admitted(meter, who, name(who, 3), 2)
    for held in (second, third):
        meter.settle(held, b"{}")
    assert count(books, who)[1] == 3
    with pytest.raises(ApiError):
        meter.admit(who, name(who, 4), 1, 0, None)


def test_two_services_cannot_spend_a_quota_twice(books: Engine) -> None:
    who, one, two = account(books, quota="0.0006"), Meter(books), Meter(books)
    first, second = admitted(one, who, name(who, 1)), admitted(two, who, name(who, 2))
    one.settle(first, b"{}")
    with pytest.raises(ApiError) as caught:
        two.settle(second, b"{}")
    assert caught.value.status == 402
    assert count(books, who)[0] == 1


def test_a_kept_answer_is_given_again_by_any_service_and_billed_once(books: Engine) -> None:
    who, once = account(books), Once.of("k", b"body")
    one, two = Meter(books), Meter(books)
    first, second = admitted(one, who, name(who, 1), once=once), admitted(two, who, name(who, 2), once=once)
    assert one.settle(first, b"first") == b"first"
    assert two.settle(second, b"second") == b"first"
    assert Meter(books).admit(who, name(who, 3), 1, 0, once) == b"first"
    assert count(books, who)[0] == 1
    with pytest.raises(ApiError) as caught:
        one.admit(who, name(who, 4), 1, 0, Once.of("k", b"another body"))
    assert (caught.value.status, caught.value.code) == (422, "idempotency_key_reused")
    stranger = account(books)
    assert isinstance(one.admit(stranger, name(stranger, 1), 1, 0, once), Reservation)


def test_an_answer_expires_and_its_key_may_be_used_anew(books: Engine) -> None:
    now = [1000.0]
    who, meter, once = account(books), Meter(books, 60, lambda: now[0]), Once.of("k", b"body")
    meter.settle(admitted(meter, who, name(who, 1), once=once), b"first")
    now[0] += 61
    held = admitted(meter, who, name(who, 2), once=once)
    assert meter.settle(held, b"second") == b"second"
    now[0] += 61
    assert meter.purge() >= 1
    with books.connect() as read:
        assert read.execute(select(func.count()).where(answers.c.account == who.id)).scalar_one() == 0
    assert count(books, who)[0] == 2


def test_bill_and_answer_are_one_transaction(books: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    who, meter, once = account(books, quota="1"), Meter(books), Once.of("k", b"body")
    held = admitted(meter, who, name(who, 1), once=once)

    def fail(*_: object) -> None:
        raise RuntimeError("the machine stops here")

    with monkeypatch.context() as patch:
        patch.setattr(Meter, "_bill", fail)
        with pytest.raises(RuntimeError):
            meter.settle(held, b"first")
    assert isinstance(meter.admit(who, name(who, 2), 1, 0, once), Reservation)
    assert count(books, who)[0] == 0


def test_many_services_at_once_bill_exactly(books: Engine) -> None:
    """Eight meters, as in eight processes, work on one account whose quota allows 100 of 160 images."""
    who = account(books, quota="0.06")
    meters = [Meter(books) for _ in range(8)]

    def work(index: int) -> int:
        done = 0
        for number in range(20):
            try:
                held = admitted(meters[index], who, name(who, 100 * index + number))
                meters[index].settle(held, b"{}")
                done += 1
            except ApiError as error:
                if error.status != 402:
                    raise
        return done

    with ThreadPoolExecutor(8) as threads:
        answered = sum(threads.map(work, range(8)))
    assert answered == 100
    assert count(books, who) == (100, 100, to_nano("0.06", "quota"))


@pytest.mark.parametrize("price", ["0.000001", "0.47", "123456.789012"])
def test_money_is_exact(books: Engine, price: str) -> None:
    who, meter = account(books, price=Price(Decimal(price))), Meter(books)
    for number in range(7):
        meter.settle(admitted(meter, who, name(who, number), 3), b"{}")
    assert Decimal(written(Accounts(books).get(who.id).spent_nano)) == Decimal(price) * 21 / 1000


def test_keys(books: Engine) -> None:
    known = Accounts(books)
    who, key = known.create("a client", PRICE, quota="5", requests_per_minute=3)
    found = known.find(key)
    assert isinstance(found, Account)
    assert found == who
    assert (found.cost(1, 0), found.cost(0, 1)) == (to_nano(PRICE.of(images=1), ""), to_nano(PRICE.of(texts=1), ""))
    others: list[str] = [
        key[:-1] + ("A" if key[-1] != "A" else "B"),
        key + "x",
        "",
        "x" * 99,
        f"vl2v-{'0' * 16}-{key[-43:]}",
    ]
    assert [known.find(other) for other in others] == [Locked.UNKNOWN] * len(others)
    with books.connect() as read:
        row = read.execute(select(accounts).where(accounts.c.id == who.id)).one()
    assert key[22:] not in str(row)
    known.revoke(who.id)
    assert known.find(key) is Locked.REVOKED
    again = known.revoke(who.id)
    assert again.revoked is not None
    assert again.id in [one.id for one in known.all()]


@pytest.mark.parametrize(
    "create",
    [
        lambda known: known.create("", PRICE),
        lambda known: known.create("a", Price(Decimal("-1"))),
        lambda known: known.create("a", Price(Decimal("0.0000001"))),
        lambda known: known.create("a", PRICE, quota="much"),
        lambda known: known.create("a", PRICE, quota="1e999999999"),
        lambda known: known.create("a", PRICE, requests_per_minute=0),
        lambda known: known.create("a", Price(currency="dollars")),
        lambda known: known.get("0000"),
        lambda known: known.revoke("0000"),
    ],
)
def test_wrong_accounts_are_refused(tmp_path: Path, create: Callable[[Accounts], object]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        create(Accounts(open_database(f"sqlite:///{tmp_path}/b.sqlite")))


def test_servers_that_start_together_make_the_books_once(books: Engine) -> None:
    url = books.url.render_as_string(hide_password=False)
    for _ in range(5):
        metadata.drop_all(books)
        together = threading.Barrier(4)

        def start(together: threading.Barrier = together) -> None:
            together.wait()
            open_database(url).dispose()

        with ThreadPoolExecutor(4) as pool:
            for started in [pool.submit(start) for _ in range(4)]:
                started.result()
        account(books)


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "sqlite://",
        "sqlite:////nowhere/at/all.sqlite",
        "oracle9://a:secret@b/c",
        "postgresql://a:secret@127.0.0.1:1/c",
    ],
)
def test_books_that_cannot_be_opened(url: str) -> None:
    with pytest.raises(ConfigError, match="cannot be opened") as caught:
        open_database(url)
    assert "secret" not in str(caught.value)
