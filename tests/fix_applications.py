"""Applications that publish on their own connections: with psycopg, SQLAlchemy, Django."""

import contextlib

import psycopg
import pytest
import sqlalchemy
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import orm

LOGIN, PASSWORD = "kirby_test_shop", "only-for-tests"
INSERT = "insert into basket values (%s)"
ROLE = """
    do $$
    begin
      if not exists (select from pg_roles where rolname = 'kirby_test_shop') then
        create role kirby_test_shop login password 'only-for-tests';
      end if;
    end;
    $$
"""


def shop(house):
    """The DSN of an application whose login has a table of its own, and no right in Kirby."""
    house.conn.execute(ROLE)
    house.conn.execute("revoke kirby_worker, kirby_server from kirby_test_shop")
    house.conn.execute("create table public.basket (id integer primary key)")
    house.conn.execute("grant all on public.basket to kirby_test_shop")
    return make_conninfo(house.dsn, user=LOGIN, password=PASSWORD)


def baskets(house):
    return [id for (id,) in house.ask("select id from public.basket order by id")]


class Psycopg:
    def __init__(self, dsn):
        self.conn = psycopg.connect(dsn)

    @contextlib.contextmanager
    def transaction(self):
        with self.conn.transaction():
            yield self.conn

    savepoint = transaction

    def insert(self, id):
        self.conn.execute(INSERT, [id])

    def close(self):
        self.conn.close()


class Cursor(Psycopg):
    @contextlib.contextmanager
    def transaction(self):
        with self.conn.transaction(), self.conn.cursor() as cursor:
            yield cursor

    savepoint = transaction


def engine(dsn, scheme="postgresql+psycopg", **options):
    parts = conninfo_to_dict(dsn)
    url = sqlalchemy.URL.create(
        scheme, parts["user"], parts["password"], parts["host"], int(parts["port"]), parts["dbname"]
    )
    return (options.pop("make", sqlalchemy.create_engine))(url, **options)


class SqlAlchemy:
    """Its connection, which begins by itself and commits when told to."""

    def __init__(self, dsn):
        self.engine = engine(dsn)

    @contextlib.contextmanager
    def transaction(self):
        with self.engine.connect() as self.conn:
            yield self.conn
            self.conn.commit()

    @contextlib.contextmanager
    def savepoint(self):
        with self.conn.begin_nested():
            yield self.conn

    def insert(self, id):
        self.conn.execute(sqlalchemy.text("insert into basket values (:id)"), {"id": id})

    def close(self):
        self.engine.dispose()


class Raw(SqlAlchemy):
    """What `engine.raw_connection()` gives."""

    @contextlib.contextmanager
    def transaction(self):
        with contextlib.closing(self.engine.raw_connection()) as self.conn:
            yield self.conn
            self.conn.commit()

    @contextlib.contextmanager
    def savepoint(self):
        with self.conn.driver_connection.transaction():
            yield self.conn

    def insert(self, id):
        self.conn.cursor().execute(INSERT, [id])


class Base(orm.DeclarativeBase):
    pass


class Basket(Base):
    __tablename__ = "basket"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True, autoincrement=False)


class Session(SqlAlchemy):
    """The ORM's session."""

    @contextlib.contextmanager
    def transaction(self):
        with self.make() as self.conn:
            yield self.conn
            self.conn.commit()

    def make(self):
        return orm.Session(self.engine)

    def insert(self, id):
        self.conn.add(Basket(id=id))
        self.conn.flush()


class Scoped(Session):
    """The session of a thread, as Flask-SQLAlchemy has it."""

    def __init__(self, dsn):
        super().__init__(dsn)
        self.registry = orm.scoped_session(orm.sessionmaker(self.engine))

    @contextlib.contextmanager
    def transaction(self):
        self.conn = self.registry
        try:
            yield self.registry
            self.registry.commit()
        finally:
            self.registry.remove()


class Django:
    """The connection that everybody imports from django.db."""

    def __init__(self, dsn):
        import django
        from django.conf import settings
        from django.db import connections

        if not settings.configured:
            settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.postgresql"}})
            django.setup()
        parts = conninfo_to_dict(dsn)
        names = {name.upper(): name for name in ("user", "password", "host", "port")}
        names["NAME"] = "dbname"
        connections.close_all()
        with contextlib.suppress(AttributeError):
            del connections["default"]
        connections.databases["default"].update({name: parts[key] for name, key in names.items()})

    @contextlib.contextmanager
    def transaction(self):
        from django.db import connection, transaction

        with transaction.atomic():
            yield connection

    savepoint = transaction

    def insert(self, id):
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute(INSERT, [id])

    def close(self):
        from django.db import connections

        connections.close_all()


KINDS = [Psycopg, Cursor, SqlAlchemy, Raw, Session, Scoped, Django]


@pytest.fixture(name="shop")
def shop_fixture(sdk):
    """The DSN of an application that may publish with its process's token."""
    dsn = shop(sdk)
    sdk.conn.execute(sql.SQL("grant kirby_worker to {}").format(sql.Identifier(LOGIN)))
    return dsn


@pytest.fixture(name="application", params=KINDS, ids=lambda kind: kind.__name__.lower())
def application_fixture(request, shop):
    """An application of each kind."""
    made = request.param(shop)
    yield made
    made.close()
