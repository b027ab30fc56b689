// Reads texts as Go's net/http server does and says which requests it saw.
//
// Standard input: texts, each behind its length in four bytes. Standard output, for each: whether an answer other than
// 200 was given (0 or 1), the number of requests, and for each of them method, target, host, the number of fields, name
// and value of each, and the body. Numbers and lengths have four bytes, the highest first.
package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

func main() {
	in, out := bufio.NewReader(os.Stdin), bufio.NewWriter(os.Stdout)
	for {
		text, err := next(in)
		if err == io.EOF {
			return
		}
		if err != nil {
			log.Fatal("a text is not whole: ", err)
		}
		out.Write(read(text))
		if err := out.Flush(); err != nil {
			log.Fatal("nobody reads: ", err)
		}
	}
}

func next(in io.Reader) ([]byte, error) {
	var length uint32
	if err := binary.Read(in, binary.BigEndian, &length); err != nil {
		return nil, err
	}
	text := make([]byte, length)
	_, err := io.ReadFull(in, text)
	return text, err
}

// Everything that a connection with this text brings.
func read(text []byte) []byte {
	var seen []byte
	count := 0
	connection := &memory{text: bytes.NewReader(text), closed: make(chan struct{})}
	server := http.Server{
		// Else it answers OPTIONS * by itself.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
			count++
			seen = append(seen, reading(request)...)
		}),
	}
	server.Serve(&once{connection: connection})
	<-connection.closed
	refused := 0
	for _, line := range strings.Split(connection.answers.String(), "\r\n") {
		if !isRefusal(line) {
			continue
		}
		refused = 1
		// Behind a request, a refusal is of what the text has more than that.
		if count > 0 {
			count++
			seen = append(seen, told("", line, "", nil, nil)...)
		}
	}
	return append(number(number(nil, refused), count), seen...)
}

func isRefusal(line string) bool {
	version, status, _ := strings.Cut(line, " ")
	return strings.HasPrefix(version, "HTTP/1.") && !strings.HasPrefix(status, "200 ") && !strings.HasPrefix(status, "100 ")
}

func reading(request *http.Request) []byte {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		body = []byte("not whole: " + err.Error())
	}
	return told(request.Method, request.RequestURI, request.Host, request.Header, body)
}

func told(method, target, host string, fields http.Header, body []byte) []byte {
	out := part(part(part(nil, method), target), host)
	count := 0
	var lines []byte
	for name, values := range fields {
		for _, value := range values {
			count++
			lines = part(part(lines, strings.ToLower(name)), value)
		}
	}
	out = append(number(out, count), lines...)
	return part(out, string(body))
}

func number(out []byte, value int) []byte {
	return binary.BigEndian.AppendUint32(out, uint32(value))
}

func part(out []byte, text string) []byte {
	return append(number(out, len(text)), text...)
}

// A listener with one connection.
type once struct{ connection *memory }

func (l *once) Accept() (net.Conn, error) {
	if l.connection == nil {
		return nil, net.ErrClosed
	}
	connection := l.connection
	l.connection = nil
	return connection, nil
}

func (l *once) Close() error   { return nil }
func (l *once) Addr() net.Addr { return &net.TCPAddr{} }

// A connection that brings a text and then ends.
type memory struct {
	text    *bytes.Reader
	answers bytes.Buffer
	closed  chan struct{}
}

func (c *memory) Read(to []byte) (int, error)      { return c.text.Read(to) }
func (c *memory) Write(from []byte) (int, error)   { return c.answers.Write(from) }
func (c *memory) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *memory) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *memory) SetDeadline(time.Time) error      { return nil }
func (c *memory) SetReadDeadline(time.Time) error  { return nil }
func (c *memory) SetWriteDeadline(time.Time) error { return nil }

func (c *memory) Close() error {
	select {
	case <-c.closed:
	default:
		close(c.closed)
	}
	return nil
}
