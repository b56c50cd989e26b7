package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
)

// The exec protocol. The client posts an ExecRequest and asks for an upgrade;
// after the 101, it sends one byte that carries the descriptors of the command's
// standard input, output and error, so that the command has the very files of the
// caller, terminal included. From then on both sides send lines of JSON: the
// client one for each signal, the server one with the result.
const execProtocol = "fairway-exec"

type execSignal struct {
	Signal int `json:"signal"`
}

type execResult struct {
	ExitCode int    `json:"exitCode"`
	Error    string `json:"error,omitempty"`
}

func (h *handler) exec(w http.ResponseWriter, r *http.Request) {
	var req ExecRequest
	if r.Header.Get("Upgrade") != execProtocol {
		writeError(w, http.StatusUpgradeRequired, fmt.Errorf("exec needs an upgrade to %s", execProtocol))
		return
	}
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		writeError(w, http.StatusBadRequest, err)
		return
	}
	if req.Pod == "" || len(req.Command) == 0 {
		writeError(w, http.StatusBadRequest, errors.New("exec needs a pod and a command"))
		return
	}
	// The 101 is written only after the takeover: until then the server itself
	// reads from the connection, and would lose the descriptors that follow it.
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		writeError(w, http.StatusInternalServerError, err)
		return
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", execProtocol); err != nil {
		return
	}
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return
	}
	files, err := receiveFiles(unixConn)
	if err != nil {
		_ = json.NewEncoder(conn).Encode(execResult{Error: err.Error()})
		return
	}
	defer closeAll(files)
	req.Stdin, req.Stdout, req.Stderr = files[0], files[1], files[2]

	// The command ends with its caller.
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	signals := make(chan os.Signal, 16)
	req.Signals = signals
	go func() {
		defer cancel()
		dec := json.NewDecoder(conn)
		for {
			var s execSignal
			if dec.Decode(&s) != nil {
				return
			}
			select {
			case signals <- syscall.Signal(s.Signal):
			case <-ctx.Done():
				return
			}
		}
	}()
	var res execResult
	res.ExitCode, err = h.b.Exec(ctx, req)
	if err != nil {
		res.Error = err.Error()
	}
	_ = json.NewEncoder(conn).Encode(res)
}

// Exec runs a command in a pod with the files of r, sends it the signals of
// r.Signals, and returns its exit code.
func (c *Client) Exec(ctx context.Context, r ExecRequest) (int, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return 0, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.path)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()

	// Written by hand: an http.Client would hide the connection.
	if _, err := fmt.Fprintf(conn, "POST /v1/exec HTTP/1.1\r\nHost: fairway\r\nConnection: Upgrade\r\nUpgrade: %s\r\nContent-Length: %d\r\n\r\n%s", execProtocol, len(body), body); err != nil {
		return 0, err
	}
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		return 0, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer resp.Body.Close()
		return 0, readFailure(resp)
	}
	rights := syscall.UnixRights(int(r.Stdin.Fd()), int(r.Stdout.Fd()), int(r.Stderr.Fd()))
	if _, _, err := conn.(*net.UnixConn).WriteMsgUnix([]byte{'\n'}, rights, nil); err != nil {
		return 0, fmt.Errorf("pass stdio: %w", err)
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		enc := json.NewEncoder(conn)
		for {
			select {
			case s, ok := <-r.Signals:
				n, isNumber := s.(syscall.Signal)
				if !ok || isNumber && enc.Encode(execSignal{int(n)}) != nil {
					return
				}
			case <-done:
				return
			}
		}
	}()
	var res execResult
	if err := json.NewDecoder(br).Decode(&res); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("the other side has ended")
		}
		return 0, errors.Join(ctx.Err(), err)
	}
	if res.Error != "" {
		return 0, errors.New(res.Error)
	}
	return res.ExitCode, nil
}

// receiveFiles reads the message that carries three descriptors.
func receiveFiles(conn *net.UnixConn) ([]*os.File, error) {
	buf, oob := make([]byte, 1), make([]byte, syscall.CmsgSpace(3*4))
	n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil, err
	}
	if n != 1 {
		return nil, errors.New("no stdio was passed")
	}
	messages, err := syscall.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := syscall.ParseUnixRights(&m)
		if err != nil {
			closeAll(files)
			return nil, err
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "stdio"))
		}
	}
	if len(files) != 3 {
		closeAll(files)
		return nil, fmt.Errorf("%d descriptors were passed, want 3", len(files))
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}
