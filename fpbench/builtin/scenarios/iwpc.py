"""The IWPC warfarin table as 31 features and a dose, for 5741 of its 6256 patients.

Sources
    International Warfarin Pharmacogenetics Consortium, "Estimation of the Warfarin Dose
    with Clinical and Pharmacogenetic Data", NEJM 2009;360:753: the table, and the rules that
    infer a missing VKORC1 genotype from its neighbours.
    Truda & Marais, "Evaluating warfarin dosing models on multiple datasets with a novel
    software framework and evolutionary optimisation", J Biomed Inform 2021: the choice of
    rows and columns. The MetaV paper takes its "31-dimensional features" from it.

The table comes from PharmGKB. Units: height in cm, weight in kg, dose in mg per week.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

SHA256 = {
    "iwpc_raw.csv.gz": "ada0d2650fbf6f81d89f56e93cd65d2aa7fd13cbc9eb9f312839bd7c3f308425",
    "iwpc.pkl": "ed8868ebb51af33393754452377c7e56a8bf7e20734687da8d46ecb46948260a",
}

HEIGHT, WEIGHT = "Height (cm)", "Weight (kg)"
RACE, GENDER, AGE = "Race (OMB)", "Gender", "Age"
DOSE = "Therapeutic Dose of Warfarin"
STABLE = "Subject Reached Stable Dose of Warfarin"
CYP2C9, VKORC1 = "CYP2C9 consensus", "Imputed VKORC1"
FLAGS = [
    "Amiodarone (Cordarone)",
    "Carbamazepine (Tegretol)",
    "Phenytoin (Dilantin)",
    "Rifampin or Rifampicin",
    "Current Smoker",
]

# The genotypes that the sites reported. The table's "consensus" columns include a later quality
# control, and differ from these in 15 of the rows that we keep.
RS9923231 = "VKORC1 genotype:   -1639 G>A (3673); chr16:31015190; rs9923231; C/T"
RS2359612 = "VKORC1 genotype:   2255C>T (7566); chr16:31011297; rs2359612; A/G"
RS9934438 = "VKORC1 genotype:   1173 C>T(6484); chr16:31012379; rs9934438; A/G"
RS8050894 = "VKORC1 genotype:   1542G>C (6853); chr16:31012010; rs8050894; C/G"

# Genotypes of one to six patients each: too few to learn from. The framework excludes them too.
RARE_CYP2C9 = ["*1/*5", "*1/*6", "*1/*11", "*1/*13", "*1/*14"]
MAX_DOSE = 315.0  # mg/week; the only patient with this dose is excluded


def load(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return features (5741, 31), doses (5741,) in mg/week and feature names, in the table's order.

    `path` is one of the two copies of the raw table: `iwpc_raw.csv.gz` or the pickle `iwpc.pkl`.
    Features are in their original units; the scenario scales them.

    Raises ValueError if the checksum of the file is that of neither copy.
    """
    import pandas as pd  # here, because only the warfarin scenario needs it

    table = _read(Path(path))
    table = table.dropna(subset=[HEIGHT, WEIGHT], how="all").dropna(subset=[RACE, GENDER])
    table = table.assign(
        **{
            HEIGHT: _regressed(table, HEIGHT, on=WEIGHT),
            WEIGHT: _regressed(table, WEIGHT, on=HEIGHT),
            CYP2C9: table[CYP2C9].fillna("Unknown"),
            VKORC1: _vkorc1(table),
        }
    )
    # Not earlier: rows without a dose helped to fill in heights and weights.
    table = table.dropna(subset=[AGE, DOSE, STABLE])
    table = table[~table[CYP2C9].isin(RARE_CYP2C9) & (table[DOSE] < MAX_DOSE)]

    groups = [RACE, AGE, CYP2C9, VKORC1]
    columns = table[[HEIGHT, WEIGHT, *FLAGS, *groups]]
    features = pd.get_dummies(columns, columns=groups, dtype=float)
    features = features.fillna(0.0)  # a drug or a habit that was not recorded counts as absent
    return (
        features.to_numpy(np.float64),
        table[DOSE].to_numpy(np.float64),
        [str(name) for name in features.columns],
    )


def _read(path: Path) -> pd.DataFrame:
    """Read the raw table after a check of its checksum, because reading a pickle can run code."""
    import pandas as pd

    data = path.read_bytes()  # read once, so that the parsed bytes are the checked ones
    found = hashlib.sha256(data).hexdigest()
    if found == SHA256["iwpc_raw.csv.gz"]:
        return pd.read_csv(io.BytesIO(data), compression="gzip")
    if found == SHA256["iwpc.pkl"]:
        return pd.read_pickle(io.BytesIO(data), compression=None)  # noqa: S301 (its bytes are known)
    expected = " or ".join(f"{sha256} ({name})" for name, sha256 in SHA256.items())
    raise ValueError(
        f"{path} is not the IWPC table: its sha256 is {found}, expected {expected}; "
        "delete the file and download it again."
    )


def _regressed(table: pd.DataFrame, target: str, *, on: str) -> pd.Series:
    """Return the column `target`, its gaps filled by linear regression on `on`, race and gender."""
    import pandas as pd
    from sklearn.linear_model import LinearRegression

    inputs = pd.get_dummies(table[[on, RACE, GENDER]], columns=[RACE, GENDER], dtype=float)
    gap = table[target].isna()
    known = ~gap & table[on].notna()
    model = LinearRegression().fit(inputs[known], table.loc[known, target])
    filled = table[target].copy()
    filled[gap] = model.predict(inputs[gap])
    return filled


def _vkorc1(table: pd.DataFrame) -> pd.Series:
    """Return VKORC1 -1639, with gaps filled from genotypes that are inherited with it.

    The first of three rules that gives a value is used. Two of them do not hold for Black patients,
    because their linkage differs; the rule of rs9934438 (1173) holds for all patients.
    """
    not_black = table[RACE] != "Black or African American"
    from_2255 = table[RS2359612].map({"C/C": "G/G", "T/T": "A/A"}).where(not_black)
    from_1173 = table[RS9934438].map({"C/C": "G/G", "T/T": "A/A", "C/T": "A/G"})
    from_1542 = table[RS8050894].map({"G/G": "G/G", "C/C": "A/A", "C/G": "A/G"}).where(not_black)
    known = table[RS9923231]
    for neighbour in (from_2255, from_1173, from_1542):
        known = known.fillna(neighbour)
    return known.fillna("Unknown")
