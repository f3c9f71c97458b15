package nbd

// The numbers of the protocol, as doc/proto.md of
// https://github.com/NetworkBlockDevice/nbd has them. All integers are big
// endian.
const (
	magicHello   = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption  = 0x49484156454F5054 // "IHAVEOPT"
	magicReply   = 0x0003e889045565a9 // reply to an option
	magicRequest = 0x25609513
	magicSimple  = 0x67446698
	magicChunk   = 0x668e33ef // of a structured reply
)

// Handshake flags of both sides.
const (
	flagFixedNewstyle = 1 << 0
	flagNoZeroes      = 1 << 1
)

// Options.
const (
	optExportName      = 1
	optAbort           = 2
	optList            = 3
	optStartTLS        = 5
	optInfo            = 6
	optGo              = 7
	optStructuredReply = 8
	optListMeta        = 9
	optSetMeta         = 10
)

// Replies to options.
const (
	repAck    = 1
	repServer = 2
	repInfo   = 3
	repMeta   = 4

	repErrUnsup   = 1<<31 + 1
	repErrPolicy  = 1<<31 + 2
	repErrInvalid = 1<<31 + 3
	repErrUnknown = 1<<31 + 6
	repErrTooBig  = 1<<31 + 9
)

// What INFO and GO tell.
const (
	infoExport      = 0
	infoName        = 1
	infoDescription = 2
	infoBlockSize   = 3
)

// Transmission flags.
const (
	sendHasFlags     = 1 << 0
	sendReadOnly     = 1 << 1
	sendFlush        = 1 << 2
	sendFUA          = 1 << 3
	sendTrim         = 1 << 5
	sendWriteZeroes  = 1 << 6
	sendDF           = 1 << 7
	sendCanMultiConn = 1 << 8
	sendCache        = 1 << 10
)

// Commands.
const (
	cmdRead        = 0
	cmdWrite       = 1
	cmdDisc        = 2
	cmdFlush       = 3
	cmdTrim        = 4
	cmdCache       = 5
	cmdWriteZeroes = 6
	cmdBlockStatus = 7
)

// Flags of commands.
const (
	cmdFlagFUA    = 1 << 0
	cmdFlagNoHole = 1 << 1
	cmdFlagDF     = 1 << 2
	cmdFlagReqOne = 1 << 3
)

// Structured replies.
const (
	chunkDone = 1 << 0 // flag of the last chunk

	chunkNone        = 0
	chunkOffsetData  = 1
	chunkOffsetHole  = 2
	chunkBlockStatus = 5
	chunkError       = 1<<15 + 1
)

// Flags of base:allocation.
const (
	stateHole = 1 << 0
	stateZero = 1 << 1
)

// errno is an error as the protocol numbers them; 0 is none.
type errno uint32

const (
	ePerm     errno = 1
	eIO       errno = 5
	eInval    errno = 22
	eNoSpace  errno = 28
	eOverflow errno = 75
	eShutdown errno = 108
)

// Sizes of what is sent.
const (
	requestSize      = 28 // without the data of a write
	optionSize       = 16 // without its data
	simpleReplySize  = 16
	chunkHeaderSize  = 20
	offsetDataHeader = chunkHeaderSize + 8
	offsetHoleSize   = chunkHeaderSize + 12
)

// Limits.
const (
	maxName    = 4096               // any string of the protocol
	maxRequest = 1 << maxBufferBits // bytes that one request moves: 32 MiB, the default of the protocol
	preferred  = 4096               // block size
	metaID     = 1                  // of base:allocation, any number would do
	metaName   = "base:allocation"
)
