"""The prediction log: what was said about which case, by which bundle, and what clinicians answered; and, apart from
that, what two models said of one case during a roll-out.

Append-only but for one mark: a correction learns the batch of label events it was settled into. Rows carry
pseudonyms only. SQLite (write-ahead log, owner-only file) or PostgreSQL, by URL; the schema is made on request.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sql
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from components.errors import ConfigError, DataError, Unavailable
from components.serving.cases import Agreement, Case, Comparison, Correction, LoggedPrediction, Truth, agreement

__all__ = ["Agreement", "Case", "Comparison", "Correction", "LoggedPrediction", "PredictionLog", "Truth", "agreement"]

SCHEMA_VERSION = 2
BUSY_SECONDS = 15
LOCK = 0x6F7374656F  # any number that nobody else in the database takes


class _Utc(sql.types.TypeDecorator[datetime]):
    """Times are UTC in every database, also in those that forget the zone."""

    impl = sql.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        return value.replace(tzinfo=UTC) if value and value.tzinfo is None else value


_META = sql.MetaData()
_VERSION = sql.Table("schema_version", _META, sql.Column("version", sql.Integer, primary_key=True))
_PREDICTIONS = sql.Table(
    "predictions",
    _META,
    sql.Column("id", sql.String(20), primary_key=True),
    sql.Column("time", _Utc, nullable=False, index=True),
    sql.Column("image_id", sql.String(64), nullable=False, index=True),
    *(sql.Column(name, sql.Text, nullable=False) for name in
      ("patient_id", "study_id", "site", "device", "view", "body_region", "bundle_hash", "version", "call")),
    sql.Column("probability", sql.Double, nullable=False),
    sql.Column("logit", sql.Double, nullable=False),
    sql.Column("audit", sql.Boolean, nullable=False),
    sql.Column("inclusion_probability", sql.Double, nullable=False),
    sql.Column("quality", sql.JSON, nullable=False),
    sql.Column("embedding", sql.JSON, nullable=False),
    sql.Column("prediction_set", sql.JSON(none_as_null=True)),  # since schema 2
    sql.UniqueConstraint("image_id", "bundle_hash"),
)  # fmt: skip
# Younger than the schema: made where a log has none yet, so that a patient is found without reading every row.
_BY_PATIENT = sql.Index("ix_predictions_patient_id", _PREDICTIONS.c.patient_id)
_CORRECTIONS = sql.Table(
    "corrections",
    _META,
    sql.Column("id", sql.String(20), primary_key=True),
    sql.Column("prediction_id", sql.String(20), sql.ForeignKey("predictions.id"), nullable=False, index=True),
    sql.Column("image_id", sql.String(64), nullable=False, index=True),
    sql.Column("time", _Utc, nullable=False),
    *(sql.Column(name, sql.Text, nullable=False) for name in ("reader", "label", "note")),
    sql.Column("boxes", sql.JSON, nullable=False),
    sql.Column("blinded", sql.Boolean, nullable=False),
    sql.Column("adjudicator", sql.Boolean, nullable=False),
    sql.Column("settled", sql.Text),
)
_TRUTHS = sql.Table(
    "truths",
    _META,
    sql.Column("image_id", sql.String(64), primary_key=True),
    sql.Column("time", _Utc, nullable=False),
    sql.Column("label", sql.Text, nullable=False),
    sql.Column("ai_visible", sql.Boolean, nullable=False),
    sql.Column("batch", sql.Text, nullable=False),
)

# A table of its own: whoever reads predictions cannot take a silent score for one.
_COMPARISONS = sql.Table(
    "comparisons",
    _META,
    sql.Column("stage", sql.String(64), primary_key=True),
    sql.Column("image_id", sql.String(64), primary_key=True),
    sql.Column("time", _Utc, nullable=False),
    *(sql.Column(name, sql.Text, nullable=False) for name in ("patient_id", "champion_hash", "candidate_hash")),
    sql.Column("answered", sql.Boolean, nullable=False),
    *(sql.Column(name, sql.Double) for name in ("champion_probability", "probability")),
    *(sql.Column(name, sql.Text) for name in ("champion_call", "call", "error")),
    sql.Column("milliseconds", sql.Double, nullable=False),
)


class PredictionLog:
    """Predictions and corrections in the database at `url`; opening it touches nothing until it is used.

    Every method raises Unavailable when the database does not answer, ConfigError when `create` never ran, and
    DataError when the database is damaged.
    """

    def __init__(self, url: str) -> None:
        try:
            self._url = sql.make_url(url)
            local = self._url.get_backend_name() == "sqlite"
            # A connection a time: a file needs no pool, and none is left open in a forked flow.
            options: dict[str, Any] = {"poolclass": sql.NullPool} if local else {"pool_pre_ping": True}
            self._engine = sql.create_engine(self._url, **options)
        except (sql.exc.ArgumentError, ImportError) as error:
            raise ConfigError(
                f"OSTEOFLOW_DATABASE_URL: {type(error).__name__}; use sqlite:///file or postgresql+driver://"
            ) from None
        if local:
            sql.event.listen(self._engine, "connect", _tune_sqlite)
        self._insert = sqlite.insert if local else postgresql.insert

    def create(self) -> None:
        """Make the tables that are missing; give a log of schema 1 the column that it lacks, and leave its rows.

        Raises:
            ConfigError: the database holds a version of the schema that this software does not know.
        """
        if self._url.get_backend_name() == "sqlite" and self._url.database:
            path = Path(self._url.database)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)  # SQLite gives its journal files the mode of the database
        with self._transaction() as connection:
            if connection.dialect.name == "postgresql":  # which would let two that open a log at once block each other
                connection.execute(sql.select(sql.func.pg_advisory_xact_lock(LOCK)))
            _META.create_all(connection)
            # Of two that open an old log at once, one moves the number and adds the column; the other waits for it.
            moved = sql.update(_VERSION).where(_VERSION.c.version == 1).values(version=SCHEMA_VERSION)
            if connection.execute(moved).rowcount:
                connection.execute(sql.text("ALTER TABLE predictions ADD COLUMN prediction_set JSON"))
            connection.execute(self._insert(_VERSION).values(version=SCHEMA_VERSION).on_conflict_do_nothing())
            found = sorted(connection.scalars(sql.select(_VERSION.c.version)))
            if found != [SCHEMA_VERSION]:
                raise ConfigError(
                    f"prediction log: expected schema {SCHEMA_VERSION}, found {found}; use the version that made it"
                )
            connection.execute(sql.schema.CreateIndex(_BY_PATIENT, if_not_exists=True))

    def add_prediction(self, prediction: LoggedPrediction) -> LoggedPrediction:
        """Log `prediction`; when this bundle judged this image before, the row that stands is returned."""
        with self._transaction() as connection:
            connection.execute(self._insert(_PREDICTIONS).values(prediction.model_dump()).on_conflict_do_nothing())
            row = connection.execute(
                sql.select(_PREDICTIONS).where(
                    _PREDICTIONS.c.image_id == prediction.image_id, _PREDICTIONS.c.bundle_hash == prediction.bundle_hash
                )
            ).one()
        return LoggedPrediction.model_validate(row)

    def predictions(self, since: datetime | None = None, limit: int | None = None) -> list[LoggedPrediction]:
        """Newest first."""
        query = sql.select(_PREDICTIONS).order_by(_PREDICTIONS.c.time.desc(), _PREDICTIONS.c.id).limit(limit)
        if since is not None:
            query = query.where(_PREDICTIONS.c.time >= since)
        with self._transaction() as connection:
            return [LoggedPrediction.model_validate(row) for row in connection.execute(query)]

    def prediction(self, id: str) -> LoggedPrediction:
        """The prediction `id`.

        Raises:
            DataError: there is none.
        """
        with self._transaction() as connection:
            row = connection.execute(sql.select(_PREDICTIONS).where(_PREDICTIONS.c.id == id)).one_or_none()
        if row is None:
            raise DataError(f"prediction log: no prediction {id[:20]!r}")
        return LoggedPrediction.model_validate(row)

    def of_image(self, image_id: str) -> list[LoggedPrediction]:
        """Every bundle's prediction of one image, oldest first."""
        query = sql.select(_PREDICTIONS).where(_PREDICTIONS.c.image_id == image_id).order_by(_PREDICTIONS.c.time)
        with self._transaction() as connection:
            return [LoggedPrediction.model_validate(row) for row in connection.execute(query)]

    def count_of_patients(self, patients: Collection[str]) -> tuple[int, int]:
        """(predictions, comparisons) that are logged of these patients (pseudonyms)."""
        with self._transaction() as connection:
            sizes = [
                connection.scalar(sql.select(sql.func.count()).select_from(t).where(t.c.patient_id.in_(patients)))
                for t in (_PREDICTIONS, _COMPARISONS)
            ]
        return int(sizes[0] or 0), int(sizes[1] or 0)

    def case(self, id: str) -> Case:
        """Prediction `id` with the reads of its image.

        Raises:
            DataError: there is none.
        """
        prediction = self.prediction(id)
        return Case(prediction=prediction, reads=tuple(self.corrections(image_ids=[prediction.image_id])))

    def cases(self, limit: int) -> list[Case]:
        """The newest `limit` cases, newest first."""
        newest = self.predictions(limit=limit)
        reads: dict[str, list[Correction]] = {}
        for read in self.corrections(image_ids=[p.image_id for p in newest]):
            reads.setdefault(read.image_id, []).append(read)
        return [Case(prediction=p, reads=tuple(reads.get(p.image_id, ()))) for p in newest]

    def add_correction(
        self,
        prediction_id: str,
        *,
        reader: str,
        label: str,
        time: datetime,
        blinded: bool = False,
        adjudicator: bool = False,
        boxes: Iterable[dict[str, float]] = (),
        note: str = "",
    ) -> Correction:
        """Log a read. The same read at the same time is one row.

        Raises:
            DataError: there is no such prediction.
        """
        image_id = self.prediction(prediction_id).image_id
        key = "/".join([prediction_id, reader, label, str(blinded), time.astimezone(UTC).isoformat()])
        correction = Correction(
            id=hashlib.sha256(key.encode()).hexdigest()[:20],
            prediction_id=prediction_id,
            image_id=image_id,
            time=time,
            reader=reader,
            label=label,
            boxes=tuple(boxes),
            blinded=blinded,
            adjudicator=adjudicator,
            note=note,
        )
        with self._transaction() as connection:
            connection.execute(self._insert(_CORRECTIONS).values(correction.model_dump()).on_conflict_do_nothing())
        return correction

    def corrections(self, pending_only: bool = False, image_ids: list[str] | None = None) -> list[Correction]:
        """Reads, oldest first; `pending_only`: those not settled into a label event; `image_ids`: of these images."""
        query = sql.select(_CORRECTIONS).order_by(_CORRECTIONS.c.time, _CORRECTIONS.c.id)
        if pending_only:
            query = query.where(_CORRECTIONS.c.settled.is_(None))
        if image_ids is not None:
            query = query.where(_CORRECTIONS.c.image_id.in_(image_ids))
        with self._transaction() as connection:
            return [Correction.model_validate(row) for row in connection.execute(query)]

    def add_comparison(self, comparison: Comparison) -> None:
        """Log what two models say of one image; the first word of a stage on an image stands."""
        with self._transaction() as connection:
            connection.execute(self._insert(_COMPARISONS).values(comparison.model_dump()).on_conflict_do_nothing())

    def comparisons(self, stage: str) -> list[Comparison]:
        """Every comparison of a stage (the hash of its ledger entry), oldest first."""
        query = sql.select(_COMPARISONS).where(_COMPARISONS.c.stage == stage)
        with self._transaction() as connection:
            rows = connection.execute(query.order_by(_COMPARISONS.c.time, _COMPARISONS.c.image_id))
            return [Comparison.model_validate(row) for row in rows]

    def settle(self, truths: Iterable[Truth], correction_ids: Iterable[str], *, batch: str) -> None:
        """Record what readers agreed on, and mark the reads it rests on; repeating it changes nothing."""
        with self._transaction() as connection:
            for truth in truths:
                values = truth.model_dump()
                upsert = self._insert(_TRUTHS).values(values)
                connection.execute(upsert.on_conflict_do_update(index_elements=["image_id"], set_=values))
            marked = sql.update(_CORRECTIONS).values(settled=batch)
            for id in correction_ids:
                connection.execute(marked.where(_CORRECTIONS.c.id == id))

    def truths(self, image_ids: list[str] | None = None) -> dict[str, Truth]:
        """What readers settled, by image_id."""
        query = sql.select(_TRUTHS)
        if image_ids is not None:
            query = query.where(_TRUTHS.c.image_id.in_(image_ids))
        with self._transaction() as connection:
            return {row.image_id: Truth.model_validate(row) for row in connection.execute(query)}

    def frame(self, since: datetime | None = None) -> pd.DataFrame:
        """Predictions as monitoring reads them, oldest first.

        Returns:
            One row a prediction: the fields of LoggedPrediction (time as UTC datetime64; embedding as float32 arrays;
            each quality feature in a column of its own, instead of `quality`; `prediction_set` as a dict of labels and
            coverage, or None), and what readers settled:
            `label` (1.0 fracture, 0.0 no fracture, NaN open) and `ai_visible` (True, False, or None while open).
        """
        rows = [p.model_dump() for p in reversed(self.predictions(since))]
        truths = self.truths()
        for row in rows:
            truth = truths.get(row["image_id"])
            row.update(row.pop("quality"))
            row["embedding"] = np.asarray(row["embedding"], dtype=np.float32)
            row["label"] = {"fracture": 1.0, "no_fracture": 0.0}.get(truth.label, np.nan) if truth else np.nan
            row["ai_visible"] = truth.ai_visible if truth else None
        columns = [name for name in LoggedPrediction.model_fields if name != "quality"] + ["label", "ai_visible"]
        table = pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)
        return table.assign(time=pd.to_datetime(table["time"], utc=True), label=table["label"].astype(float))

    def count(self) -> tuple[int, int]:
        """(predictions, corrections) in the log."""
        with self._transaction() as connection:
            sizes = [
                connection.scalar(sql.select(sql.func.count()).select_from(t)) for t in (_PREDICTIONS, _CORRECTIONS)
            ]
        return int(sizes[0] or 0), int(sizes[1] or 0)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """One committed transaction, or none of it."""
        where = self._url.render_as_string(hide_password=True)
        try:
            with self._engine.begin() as connection:
                yield connection
        except sql.exc.DBAPIError as error:
            text = str(error.orig)
            if "no such table" in text or ("does not exist" in text and "relation" in text):
                raise ConfigError(f"prediction log {where}: no tables yet; run `osteoflow up`, or create()") from None
            what = f"prediction log {where}: {type(error.orig).__name__}: {text.splitlines()[0]}"
            if isinstance(error, sql.exc.OperationalError | sql.exc.InterfaceError):
                raise Unavailable(what) from None
            raise DataError(what) from None


def _tune_sqlite(connection: Any, _record: Any) -> None:
    connection.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA foreign_keys=ON")
