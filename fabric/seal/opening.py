"""Open a verified envelope: the only place where a ciphertext becomes a block.

Takes a VerifiedEnvelope and nothing less. Towards the outside there is one
error, whatever the cause, so that nobody learns from failures.
Spec: docs/format.md section 5.
"""

import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fabric.model.block import Block, unpack
from fabric.model.errors import Malformed, PeerError, Reason
from fabric.model.limits import DECOMPRESSED_BYTES_MAX, QUICK_BYTES_MAX
from fabric.model.names import Stream
from fabric.model.schema import RowSchema
from fabric.seal import envelope as form
from fabric.seal import plaintext
from fabric.seal.sealing import NONCE
from fabric.seal.secret import EpochSecret, block_key, block_salt, epoch_id
from fabric.seal.suites import claimed_suite
from fabric.seal.verify import VerifiedEnvelope


def open_(verified: VerifiedEnvelope, secret: EpochSecret, schema: RowSchema) -> Block:
    """Undo `seal`.

    Raises:
        PeerError: OPEN_FAILED: another secret, schema or count, changed bytes, a wrong
            salt, padding, coding or content. One error for all.
    """
    try:
        return _open(verified.envelope, secret, schema)
    except (InvalidTag, Malformed) as exc:
        raise PeerError(Reason.OPEN_FAILED, "block does not open") from exc


def open_quickly(
    verified: VerifiedEnvelope, secret: EpochSecret, schema: RowSchema
) -> Block | None:
    """As `open_`, for who must not be held up: whatever is in a short envelope, a few ms.

    Sixteen kilobytes of it can expand to three megabytes, and those to 250,000 values.

    Returns:
        None where that is not enough, or not plain yet: `open_` has the time and the verdict.
    """
    try:
        return _open(verified.envelope, secret, schema, is_quick=True)
    except (InvalidTag, Malformed):
        return None


def _open(
    envelope: form.Envelope, secret: EpochSecret, schema: RowSchema, *, is_quick: bool = False
) -> Block:
    header = envelope.header
    kdf = claimed_suite(header.suite).kdf
    wanted = epoch_id(secret, header.sender, str(header.topic), header.epoch_number, kdf=kdf)
    if not hmac.compare_digest(wanted, header.epoch_id):
        raise Malformed("secret is not the epoch's")
    if header.fingerprint != schema.fingerprint:
        raise Malformed("block is of another schema")
    key = block_key(secret, form.key_info(header), header.salt, kdf=kdf)
    padded = AESGCM(key).decrypt(NONCE, envelope.ciphertext, form.aad(envelope.header_bytes))
    salt = block_salt(secret, form.without_salt(header), padded, kdf=kdf)
    # A sender that repeats salts would repeat keys under one nonce: do not let it pass unseen.
    if not hmac.compare_digest(salt, header.salt):
        raise Malformed("salt was not made from header and plaintext")
    stream = Stream(header.origin, header.topic, header.partition)
    bytes_max = QUICK_BYTES_MAX if is_quick else DECOMPRESSED_BYTES_MAX
    plain = plaintext.decode(padded, header.coding, bytes_max=bytes_max)
    block = unpack(
        plain, schema, stream=stream, after=header.after, upto=header.upto, is_quick=is_quick
    )
    if block.count != header.count:
        raise Malformed("block does not hold as many changes as its header says")
    return block
