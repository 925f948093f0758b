"""The error tree of ndtwin.

    NdtwinError
    ├── UsageError            what the operator asked for or wrote down is wrong      (exit code 2)
    │   ├── ConfigError       the configuration file or an environment variable
    │   ├── InventoryError    the inventory file
    │   ├── DataError         a data set's file is damaged or not what it claims
    │   └── TopologyError     a topology, routing or traffic that cannot be (twin, lab)
    ├── PeerError             a device, broker or database did not do its part         (exit code 1)
    │   ├── BrokerUnavailable the Kafka broker cannot be reached
    │   └── DeviceError       a device is silent, refuses, or answers nonsense
    ├── DecodeError           bytes that are not what they claim to be → dead-letter topic
    └── CheckpointError       a model file that does not fit this version or this use

Every message is one line that says what is wrong and what to do about it. The command line prints it
without a traceback; services log it and go on.
"""


class NdtwinError(Exception):
    """Base of all errors raised on purpose."""

    exit_code = 1


class UsageError(NdtwinError):
    """What the operator asked for cannot be done as written."""

    exit_code = 2


class ConfigError(UsageError):
    """The configuration is wrong."""


class InventoryError(UsageError):
    """The inventory is wrong."""


class DataError(UsageError):
    """A data set's file is damaged or not what it claims."""


class TopologyError(UsageError):
    """A topology, a routing or a traffic matrix that cannot be."""


class PeerError(NdtwinError):
    """Somebody else's part of the system did not do its work."""


class BrokerUnavailable(PeerError):
    """The Kafka broker cannot be reached."""


class DeviceError(PeerError):
    """A device is silent, refuses, or answers nonsense."""


class DecodeError(NdtwinError):
    """Bytes that are not what they claim to be."""


class CheckpointError(NdtwinError):
    """A model file that does not fit."""
