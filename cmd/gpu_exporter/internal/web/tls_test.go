// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// authority signs certificates for one test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T, dir, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: dir, pool: x509.NewCertPool()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.key = newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(a.cert)
	a.write(name+".pem", "CERTIFICATE", der)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue writes name.pem and name.key into the authority's directory.
func (a *authority) issue(name string) tls.Certificate {
	a.t.Helper()
	key := newKey(a.t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	certFile, keyFile := a.write(name+".pem", "CERTIFICATE", der), a.write(name+".key", "PRIVATE KEY", keyDER)
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		a.t.Fatal(err)
	}
	return pair
}

func (a *authority) write(name, kind string, der []byte) string {
	a.t.Helper()
	var b bytes.Buffer
	if err := pem.Encode(&b, &pem.Block{Type: kind, Bytes: der}); err != nil {
		a.t.Fatal(err)
	}
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// The web configuration of exporter-toolkit: encryption, passwords and client
// certificates, for /metrics and all else, over HTTP/1.1 and HTTP/2.
func TestWebConfig(t *testing.T) {
	dir := t.TempDir()
	ours, strangers := newAuthority(t, dir, "ours"), newAuthority(t, dir, "strangers")
	ours.issue("server")
	prometheus, stranger := ours.issue("prometheus"), strangers.issue("stranger")
	other := ours.issue("other")

	const (
		tlsConfig = "tls_server_config: {cert_file: server.pem, key_file: server.key}\n"
		mutual    = "tls_server_config: {cert_file: server.pem, key_file: server.key, client_ca_file: ours.pem, client_auth_type: RequireAndVerifyClientCert, client_allowed_sans: [prometheus]}\n"
		// The password is "secret", with bcrypt's lowest cost.
		users = "basic_auth_users: {prometheus: $2a$04$E6hWqFlFHdyoxWEfMayoceM/4PQCwgolywbMrmkbxisVkrPd3SOGe}\n"
	)
	tests := []struct {
		name     string
		config   string
		plain    bool // http instead of https
		cert     *tls.Certificate
		user     string
		password string
		http1    bool
		status   int // 0: no connection
	}{
		{name: "tls", config: tlsConfig, status: 200},
		{name: "tls, http/1.1", config: tlsConfig, http1: true, status: 200},
		{name: "tls, plain client", config: tlsConfig, plain: true, status: 400},
		{name: "client certificate", config: mutual, cert: &prometheus, status: 200},
		{name: "no client certificate", config: mutual},
		{name: "client certificate of another authority", config: mutual, cert: &stranger},
		{name: "client certificate of another name", config: mutual, cert: &other},
		{name: "password", config: users, plain: true, user: "prometheus", password: "secret", status: 200},
		{name: "wrong password", config: users, plain: true, user: "prometheus", password: "guess", status: 401},
		{name: "wrong user", config: users, plain: true, user: "root", password: "secret", status: 401},
		{name: "no password", config: users, plain: true, status: 401},
		{name: "all of it", config: mutual + users, cert: &prometheus, user: "prometheus", password: "secret", status: 200},
		{name: "all but the password", config: mutual + users, cert: &prometheus, status: 401},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file, err := os.CreateTemp(dir, "web-*.yml")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := file.WriteString(tt.config); err != nil {
				t.Fatal(err)
			}
			if err := file.Close(); err != nil {
				t.Fatal(err)
			}
			endpoints := Endpoints{Metrics: serving(40, &text{body: "x 1\n"}), Ready: alwaysReady, Pprof: true, Status: testStatus()}
			mux, err := endpoints.Handler()
			if err != nil {
				t.Fatal(err)
			}
			address := startServer(t, mux, defaultTimeouts(), file.Name())
			tlsClient := &tls.Config{RootCAs: ours.pool, MinVersion: tls.VersionTLS12}
			if tt.cert != nil {
				// Sent even if the server names other authorities.
				tlsClient.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return tt.cert, nil }
			}
			transport := &http.Transport{TLSClientConfig: tlsClient, ForceAttemptHTTP2: !tt.http1}
			defer transport.CloseIdleConnections()
			scheme := "https"
			if tt.plain {
				scheme = "http"
			}
			for _, path := range []string{"/metrics", "/", StatusPath, "/health", "/debug/pprof/cmdline"} {
				r, err := http.NewRequest(http.MethodGet, scheme+"://"+address+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				if tt.user != "" {
					r.SetBasicAuth(tt.user, tt.password)
				}
				resp, err := transport.RoundTrip(r)
				if tt.status == 0 {
					if err == nil {
						_ = resp.Body.Close()
						t.Errorf("%s: status %d, want no connection", path, resp.StatusCode)
					}
					continue
				}
				if err != nil {
					t.Fatalf("%s: %v", path, err)
				}
				_ = resp.Body.Close()
				if resp.StatusCode != tt.status {
					t.Errorf("%s: status %d, want %d", path, resp.StatusCode, tt.status)
				}
				if want := map[bool]string{true: "HTTP/1.1", false: "HTTP/2.0"}[tt.http1 || tt.plain]; tt.status == 200 && resp.Proto != want {
					t.Errorf("%s: %s, want %s", path, resp.Proto, want)
				}
			}
		})
	}
}
