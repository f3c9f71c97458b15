// Package wire is what the test machine's two sides say to each other: one
// stream of gob-encoded Messages each way over a virtio serial port.
package wire

// Port is the name of the virtio serial port.
const Port = "cbt.agent"

// MaxData is the largest Data of a Message, in bytes.
const MaxData = 32 << 10

// A Kind says what a Message means.
type Kind uint8

// From the agent: Hello once, then for each process Stdout and Stderr in any
// order and one Exit, last. To the agent: Exec starts a process under an ID
// that is not in use, Stdin and one StdinEnd feed it, Signal goes to its
// process group. Off makes the agent end, and with it the machine.
const (
	Hello Kind = iota + 1
	Exec
	Stdin
	StdinEnd
	Signal
	Stdout
	Stderr
	Exit
	Off
)

// A Message is one step of one process.
type Message struct {
	Kind Kind
	ID   uint32
	Data []byte   // Stdin, Stdout, Stderr; Exit: why it did not start
	Args []string // Exec
	Env  []string // Exec: added to the agent's
	N    int      // Signal: its number; Exit: the exit code, 128+N after a signal, -1 if it did not start
}
