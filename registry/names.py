"""What people call products: a name beside the id that the ledger knows.

Guarantees: a name means one product and a product has one name here; neither changes once given.

Rules: a name is a word of this registry alone. Nothing is proved by it; devices and auditors go by
id.
"""

from __future__ import annotations

from sqlalchemy import Column, Engine, LargeBinary, String, Table, select
from sqlalchemy.dialects.sqlite import insert

from protocol.errors import Malformed, Misuse
from protocol.ids import ProductId
from registry.naming import check_name
from registry.store import REGISTRY, reading, writing

_names = Table(
    "product_name",
    REGISTRY,
    Column("name", String(64), primary_key=True),
    Column("product", LargeBinary(32), nullable=False, unique=True),
)


class Names:
    """The names of one registry; safe for threads."""

    def __init__(self, engine: Engine) -> None:
        """``engine``: the database of what cannot be derived."""
        self._engine = engine

    def give(self, name: str, product: ProductId) -> None:
        """Calls ``product`` by ``name`` from now on; `Misuse` ``name-taken`` if either is taken."""
        check_name(name, "product name")
        row = {"name": name, "product": bytes(product)}
        with writing(self._engine) as sql:
            sql.execute(insert(_names).values(row).on_conflict_do_nothing())
            same = (_names.c.name == name) & (_names.c.product == bytes(product))
            if sql.execute(select(_names.c.name).where(same)).first() is None:
                raise Misuse(
                    "name-taken",
                    f"product name {name!r} refused",
                    "another product has it here, or this product has another name",
                    "choose another name",
                )

    def of(self, product: ProductId) -> str | None:
        """What ``product`` is called here, if anything."""
        with reading(self._engine) as sql:
            query = select(_names.c.name).where(_names.c.product == bytes(product))
            return sql.execute(query).scalar()

    def resolve(self, reference: str) -> ProductId:
        """The product meant by a name, or by an id in hex; `Misuse` ``unknown-product``."""
        try:
            return ProductId.parse(reference)
        except Malformed:
            pass
        with reading(self._engine) as sql:
            query = select(_names.c.product).where(_names.c.name == reference)
            product = sql.execute(query).scalar()
        if product is None:
            raise Misuse(
                "unknown-product",
                f"product {reference[:80]!r} not found",
                "this registry knows no product of that name",
                "see `firmledger product list`",
            )
        return ProductId(product)
