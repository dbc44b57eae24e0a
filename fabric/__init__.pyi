"""The fabric's public Python API, for type checkers."""

from fabric.agent.api import Agent as Agent
from fabric.agent.subscription import Delivery as Delivery
from fabric.agent.subscription import Position as Position
from fabric.model.change import Change as Change
from fabric.model.change import Op as Op
from fabric.model.change import Run as Run
from fabric.model.change import Sequence as Sequence
from fabric.model.errors import DeniedError as DeniedError
from fabric.model.errors import FabricError as FabricError
from fabric.model.errors import PeerError as PeerError
from fabric.model.errors import Reason as Reason
from fabric.model.errors import UnavailableError as UnavailableError
from fabric.model.errors import UsageError as UsageError
