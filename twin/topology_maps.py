"""The maps of the literature, as tables: edges with kilometres, nodes with latitude and longitude."""

from __future__ import annotations

UNKNOWN_LENGTH_KM = (
    700.0  # where a map gives neither places nor lengths: a usual hop of a continental backbone
)

# NSFNET T1 backbone, 14 nodes and 21 links, with the link lengths of the optical networking literature (Miyao
# and Saito, "Optimal design and evaluation of survivable WDM transport networks", IEEE JSAC 16(7), 1998). The
# NSFNET of the RouteNet data sets is the same graph with numbers for names.
NSFNET: tuple[tuple[str, str, float], ...] = (
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
NSFNET_PLACES = {
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

# GÉANT2, 24 nodes and 37 links, as in the RouteNet data sets (Rusek et al., "RouteNet: leveraging graph
# neural networks for network modeling and optimization in SDN", IEEE JSAC 38(10), 2020). The nodes have
# numbers only.
GEANT2: tuple[tuple[int, int], ...] = (
    *((0, 1), (0, 2), (1, 3), (1, 6), (1, 9), (2, 3), (2, 4), (3, 5), (3, 6), (4, 7), (5, 8), (6, 8), (6, 9)),
    *((7, 8), (7, 11), (8, 11), (8, 12), (8, 17), (8, 18), (8, 20), (9, 10), (9, 12), (9, 13), (10, 13)),
    *((11, 14), (11, 20), (12, 13), (12, 19), (12, 21), (14, 15), (15, 16), (16, 17), (17, 18), (18, 21)),
    *((19, 23), (21, 22), (22, 23)),
)

# German backbone network, 17 nodes and 26 links: "nobel-germany" of SNDlib (Orlowski et al., "SNDlib 1.0:
# survivable network design library", Networks 55(3), 2010). The GBN of the RouteNet data sets is the same
# graph with numbers for names.
GBN: tuple[tuple[str, str], ...] = (
    ("Norden", "Bremen"),
    ("Norden", "Dortmund"),
    ("Bremen", "Hamburg"),
    ("Bremen", "Hannover"),
    ("Hamburg", "Berlin"),
    ("Hamburg", "Hannover"),
    ("Berlin", "Hannover"),
    ("Berlin", "Leipzig"),
    ("Hannover", "Dortmund"),
    ("Hannover", "Leipzig"),
    ("Hannover", "Frankfurt"),
    ("Dortmund", "Essen"),
    ("Dortmund", "Koeln"),
    ("Essen", "Duesseldorf"),
    ("Duesseldorf", "Koeln"),
    ("Koeln", "Frankfurt"),
    ("Frankfurt", "Leipzig"),
    ("Frankfurt", "Mannheim"),
    ("Frankfurt", "Nuernberg"),
    ("Leipzig", "Nuernberg"),
    ("Mannheim", "Karlsruhe"),
    ("Karlsruhe", "Stuttgart"),
    ("Stuttgart", "Nuernberg"),
    ("Stuttgart", "Ulm"),
    ("Ulm", "Muenchen"),
    ("Muenchen", "Nuernberg"),
)
GBN_PLACES = {
    "Berlin": (52.52, 13.40),
    "Bremen": (53.08, 8.80),
    "Dortmund": (51.51, 7.47),
    "Duesseldorf": (51.23, 6.78),
    "Essen": (51.46, 7.01),
    "Frankfurt": (50.11, 8.68),
    "Hamburg": (53.55, 10.00),
    "Hannover": (52.37, 9.73),
    "Karlsruhe": (49.01, 8.40),
    "Koeln": (50.94, 6.96),
    "Leipzig": (51.34, 12.37),
    "Mannheim": (49.49, 8.47),
    "Muenchen": (48.14, 11.58),
    "Norden": (53.60, 7.20),
    "Nuernberg": (49.45, 11.08),
    "Stuttgart": (48.78, 9.18),
    "Ulm": (48.40, 9.99),
}
