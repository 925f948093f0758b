"""The maps of the literature, as tables: edges with kilometres, nodes with latitude and longitude."""

from __future__ import annotations

EdgeTable = tuple[tuple[str, str, float], ...]
Places = dict[str, tuple[float, float]]

# NSFNET T1 backbone, 14 nodes and 21 links, with the link lengths of the optical networking literature
# (Miyao and Saito, "Optimal design and evaluation of survivable WDM transport networks", IEEE JSAC 16(7), 1998).
NSFNET_EDGES: EdgeTable = (
    ("WA", "CA1", 1050),
    ("WA", "CA2", 1500),
    ("WA", "IL", 2400),
    ("CA1", "CA2", 600),
    ("CA1", "UT", 750),
    ("CA2", "TX", 1800),
    ("UT", "CO", 600),
    ("UT", "MI", 1950),
    ("CO", "TX", 1200),
    ("CO", "NE", 600),
    ("TX", "GA", 1050),
    ("TX", "DC", 1800),
    ("NE", "IL", 750),
    ("IL", "PA", 750),
    ("PA", "GA", 750),
    ("PA", "NY", 300),
    ("PA", "NJ", 300),
    ("MI", "NY", 600),
    ("MI", "NJ", 750),
    ("NY", "DC", 300),
    ("NJ", "DC", 150),
)
# The sites of the backbone's nodes: Seattle, Palo Alto, San Diego, Salt Lake City, Boulder, Houston, Lincoln,
# Urbana-Champaign, Pittsburgh, Atlanta, Ann Arbor, Ithaca, Princeton, College Park.
NSFNET_PLACES: Places = {
    "WA": (47.6, -122.3),
    "CA1": (37.4, -122.1),
    "CA2": (32.7, -117.2),
    "UT": (40.8, -111.9),
    "CO": (40.0, -105.3),
    "TX": (29.8, -95.4),
    "NE": (40.8, -96.7),
    "IL": (40.1, -88.2),
    "PA": (40.4, -80.0),
    "GA": (33.7, -84.4),
    "MI": (42.3, -83.7),
    "NY": (42.4, -76.5),
    "NJ": (40.3, -74.7),
    "DC": (39.0, -76.9),
}
