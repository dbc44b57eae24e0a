"""The fabric's public Python API, for type checkers."""

from fabric.agent.api import Agent as Agent
from fabric.agent.subscription import Delivery as Delivery
from fabric.agent.subscription import Position as Position
from fabric.model.block import Block as Block
from fabric.model.change import Change as Change
from fabric.model.change import Op as Op
from fabric.model.change import Row as Row
from fabric.model.change import Run as Run
from fabric.model.change import Sequence as Sequence
from fabric.model.errors import ConfigInvalid as ConfigInvalid
from fabric.model.errors import DeniedError as DeniedError
from fabric.model.errors import FabricError as FabricError
from fabric.model.errors import Malformed as Malformed
from fabric.model.errors import PeerError as PeerError
from fabric.model.errors import Reason as Reason
from fabric.model.errors import UnavailableError as UnavailableError
from fabric.model.errors import UsageError as UsageError
from fabric.model.names import Origin as Origin
from fabric.model.names import Stream as Stream
from fabric.model.names import Topic as Topic
from fabric.ports import StreamState as StreamState
