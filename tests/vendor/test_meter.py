"""The meter bills an answered request once, a failed one never, and nothing above the quota; SQLite and PostgreSQL."""

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
from vendor_serving import PRICE

from ports import free_port
from vl2v.errors import ConfigError
from vl2v.teacher.base import Price
from vl2v.vendor_server.accounts import Account, Accounts
from vl2v.vendor_server.database import accounts, answers, bills, metadata, open_database
from vl2v.vendor_server.keys import KeyFault
from vl2v.vendor_server.meter import IdempotencyKey, Meter, Reservation
from vl2v.vendor_server.money import to_nano, written
from vl2v.web.faults import ApiError

POSTGRESQL = [pytest.mark.system, pytest.mark.xdist_group("postgresql")]


def pg_binaries() -> Path | None:
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    return programs[-1].parent if programs else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A PostgreSQL server on a free port. It refuses to run as root, so it runs as another user then."""
    programs = pg_binaries()
    if programs is None:
        pytest.skip("PostgreSQL is not installed under /usr/lib/postgresql")
    import pwd  # only POSIX has it

    user = "postgres" if os.getuid() == 0 else None
    if user is not None and user not in {entry.pw_name for entry in pwd.getpwall()}:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    folder = Path(tempfile.mkdtemp())  # pytest's folders are readable by their owner only
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
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    url = f"sqlite:///{tmp_path}/accounts.sqlite" if request.param == "sqlite" else request.getfixturevalue("postgres")
    engine = open_database(url)
    assert engine.dialect.name == request.param
    yield engine
    engine.dispose()


def make_account(database: Engine, quota: str | None = None, price: Price = PRICE) -> Account:
    return Accounts(database).create("one", price, quota=quota)[0]


def admit(
    meter: Meter, account: Account, request: str, images: int = 1, once: IdempotencyKey | None = None
) -> Reservation:
    reservation = meter.admit(account, request, images, 0, once)
    assert isinstance(reservation, Reservation)
    return reservation


def count(database: Engine, account: Account) -> tuple[int, int, int]:
    """Return the number of bills, of their images, and their amount in billionths."""
    with database.connect() as read:
        sums = select(func.count(), func.coalesce(func.sum(bills.c.images), 0), func.sum(bills.c.cost_nano))
        row = read.execute(sums.where(bills.c.account == account.id)).one()
    return row[0], int(row[1]), int(row[2] or 0)


def name(account: Account, number: int) -> str:
    return f"{account.id}{number:016x}"


def test_answered_is_billed_and_failed_is_not(database: Engine) -> None:
    account, meter = make_account(database), Meter(database)
    meter.settle(meter.admit(account, name(account, 1), 3, 2, None), b"{}")  # type: ignore[arg-type]
    meter.release(admit(meter, account, name(account, 2)))
    assert count(database, account) == (1, 3, to_nano("0.002", "cost"))
    now = Accounts(database).get(account.id)
    assert (now.images, now.texts, now.requests, written(now.spent_nano)) == (3, 2, 1, "0.002")


def test_requests_in_flight_count_against_the_quota(database: Engine) -> None:
    account, meter = make_account(database, quota="0.0018"), Meter(database)  # three images
    first, second = (admit(meter, account, name(account, i)) for i in range(2))
    with pytest.raises(ApiError) as caught:
        meter.admit(account, name(account, 2), 2, 0, None)
    assert caught.value.status == 402
    meter.release(first)
    third = admit(meter, account, name(account, 3), 2)
    for reservation in (second, third):
        meter.settle(reservation, b"{}")
    assert count(database, account)[1] == 3
    with pytest.raises(ApiError):
        meter.admit(account, name(account, 4), 1, 0, None)


def test_two_services_cannot_spend_a_quota_twice(database: Engine) -> None:
    account, one, two = make_account(database, quota="0.0006"), Meter(database), Meter(database)
    first, second = admit(one, account, name(account, 1)), admit(two, account, name(account, 2))
    one.settle(first, b"{}")
    with pytest.raises(ApiError) as caught:
        two.settle(second, b"{}")
    assert caught.value.status == 402
    assert count(database, account)[0] == 1


def test_a_saved_answer_is_repeated_by_any_service_and_billed_once(database: Engine) -> None:
    account, once = make_account(database), IdempotencyKey.of("k", b"body")
    one, two = Meter(database), Meter(database)
    first, second = admit(one, account, name(account, 1), once=once), admit(two, account, name(account, 2), once=once)
    assert one.settle(first, b"first") == b"first"
    assert two.settle(second, b"second") == b"first"
    assert Meter(database).admit(account, name(account, 3), 1, 0, once) == b"first"
    assert count(database, account)[0] == 1
    with pytest.raises(ApiError) as caught:
        one.admit(account, name(account, 4), 1, 0, IdempotencyKey.of("k", b"another body"))
    assert (caught.value.status, caught.value.code) == (422, "idempotency_key_reused")
    other_account = make_account(database)
    assert isinstance(one.admit(other_account, name(other_account, 1), 1, 0, once), Reservation)


def test_an_answer_expires_and_its_key_can_be_used_again(database: Engine) -> None:
    now = [1000.0]
    account, meter, once = make_account(database), Meter(database, 60, lambda: now[0]), IdempotencyKey.of("k", b"body")
    meter.settle(admit(meter, account, name(account, 1), once=once), b"first")
    now[0] += 61
    reservation = admit(meter, account, name(account, 2), once=once)
    assert meter.settle(reservation, b"second") == b"second"
    now[0] += 61
    assert meter.purge() >= 1
    with database.connect() as read:
        assert read.execute(select(func.count()).where(answers.c.account == account.id)).scalar_one() == 0
    assert count(database, account)[0] == 2


def test_bill_and_answer_are_one_transaction(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    account, meter, once = make_account(database, quota="1"), Meter(database), IdempotencyKey.of("k", b"body")
    reservation = admit(meter, account, name(account, 1), once=once)

    def fail(*_: object) -> None:
        raise RuntimeError("the machine stops here")

    with monkeypatch.context() as patch:
        patch.setattr(Meter, "_bill", fail)
        with pytest.raises(RuntimeError):
            meter.settle(reservation, b"first")
    assert isinstance(meter.admit(account, name(account, 2), 1, 0, once), Reservation)
    assert count(database, account)[0] == 0


def test_many_services_at_once_bill_exactly(database: Engine) -> None:
    """Eight meters, as in eight processes, work on one account whose quota allows 100 of 160 images."""
    account = make_account(database, quota="0.06")
    meters = [Meter(database) for _ in range(8)]

    def work(index: int) -> int:
        done = 0
        for number in range(20):
            try:
                reservation = admit(meters[index], account, name(account, 100 * index + number))
                meters[index].settle(reservation, b"{}")
                done += 1
            except ApiError as error:
                if error.status != 402:
                    raise
        return done

    with ThreadPoolExecutor(8) as threads:
        answered = sum(threads.map(work, range(8)))
    assert answered == 100
    assert count(database, account) == (100, 100, to_nano("0.06", "quota"))


@pytest.mark.parametrize("price", ["0.000001", "0.47", "123456.789012"])
def test_money_is_exact(database: Engine, price: str) -> None:
    account, meter = make_account(database, price=Price(Decimal(price))), Meter(database)
    for number in range(7):
        meter.settle(admit(meter, account, name(account, number), 3), b"{}")
    assert Decimal(written(Accounts(database).get(account.id).spent_nano)) == Decimal(price) * 21 / 1000


def test_a_key_identifies_its_account_until_it_is_revoked(database: Engine) -> None:
    registry = Accounts(database)
    account, key = registry.create("a client", PRICE, quota="5", requests_per_minute=3)
    account_of_key = registry.find(key)
    assert isinstance(account_of_key, Account)
    assert account_of_key == account
    assert (account_of_key.cost(1, 0), account_of_key.cost(0, 1)) == (
        to_nano(PRICE.of(images=1), ""),
        to_nano(PRICE.of(texts=1), ""),
    )
    others: list[str] = [
        key[:-1] + ("A" if key[-1] != "A" else "B"),
        key + "x",
        "",
        "x" * 99,
        f"vl2v-{'0' * 16}-{key[-43:]}",
    ]
    assert [registry.find(other) for other in others] == [KeyFault.UNKNOWN] * len(others)
    with database.connect() as read:
        row = read.execute(select(accounts).where(accounts.c.id == account.id)).one()
    assert key[22:] not in str(row)
    registry.revoke(account.id)
    assert registry.find(key) is KeyFault.REVOKED
    revoked = registry.revoke(account.id)
    assert revoked.revoked is not None
    assert revoked.id in [one.id for one in registry.all()]


@pytest.mark.parametrize(
    "create",
    [
        lambda registry: registry.create("", PRICE),
        lambda registry: registry.create("a", Price(Decimal("-1"))),
        lambda registry: registry.create("a", Price(Decimal("0.0000001"))),
        lambda registry: registry.create("a", PRICE, quota="much"),
        lambda registry: registry.create("a", PRICE, quota="1e999999999"),
        lambda registry: registry.create("a", PRICE, requests_per_minute=0),
        lambda registry: registry.create("a", Price(currency="dollars")),
        lambda registry: registry.get("0000"),
        lambda registry: registry.revoke("0000"),
    ],
)
def test_wrong_accounts_are_refused(tmp_path: Path, create: Callable[[Accounts], object]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        create(Accounts(open_database(f"sqlite:///{tmp_path}/b.sqlite")))


def test_servers_that_start_together_create_the_tables_once(database: Engine) -> None:
    url = database.url.render_as_string(hide_password=False)
    for _ in range(5):
        metadata.drop_all(database)
        together = threading.Barrier(4)

        def start(together: threading.Barrier = together) -> None:
            together.wait()
            open_database(url).dispose()

        with ThreadPoolExecutor(4) as pool:
            for started in [pool.submit(start) for _ in range(4)]:
                started.result()
        make_account(database)


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
def test_a_database_that_cannot_be_opened_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="cannot be opened") as caught:
        open_database(url)
    assert "secret" not in str(caught.value)
