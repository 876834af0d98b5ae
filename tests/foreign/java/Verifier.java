// TLS clients as Java programs and Android apps make them. Reads one check a line from stdin,
//
//     KIND PORT CA_FILE KEY_STORE PASSWORD [QUERY]
//
// and answers each with a line: `accepted`, or `refused` and the reason. With a QUERY it asks for a WebSocket with that
// in its URL, and `accepted` is followed by the first line of the answer; without one it waits for one letter. KIND is `jsse`, the platform's own trust
// manager over every certificate of CA_FILE, or `first`: exactly two certificates, none older than 30 days, and a path
// that ends at the first certificate of CA_FILE, as Android's WebSocket SDK of Flipper asks for.

import java.io.*;
import java.nio.file.*;
import java.security.KeyStore;
import java.security.cert.*;
import java.time.*;
import java.util.*;
import javax.net.ssl.*;

public class Verifier {
    static final Duration OLDEST = Duration.ofDays(31);

    public static void main(String[] arguments) throws Exception {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            System.out.println(check(line.split(" ")));
            System.out.flush();
        }
    }

    static String check(String[] words) {
        try {
            List<X509Certificate> anchors = new ArrayList<>();
            try (InputStream file = Files.newInputStream(Path.of(words[2]))) {
                for (Certificate each : CertificateFactory.getInstance("X.509").generateCertificates(file)) {
                    anchors.add((X509Certificate) each);
                }
            }
            TrustManager[] trust = words[0].equals("first")
                ? new TrustManager[] {new FirstOnly(anchors.get(0))} : platform(anchors);
            KeyStore mine = KeyStore.getInstance("PKCS12");
            try (InputStream file = Files.newInputStream(Path.of(words[3]))) {
                mine.load(file, words[4].toCharArray());
            }
            KeyManagerFactory keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
            keys.init(mine, words[4].toCharArray());
            SSLContext context = SSLContext.getInstance("TLS");
            context.init(keys.getKeyManagers(), trust, null);
            try (SSLSocket socket = (SSLSocket) context.getSocketFactory().createSocket("127.0.0.1", Integer.parseInt(words[1]))) {
                socket.setSoTimeout(10000);
                socket.startHandshake();
                if (words.length > 5) {
                    return "accepted " + upgrade(socket, words[5]);
                }
                return socket.getInputStream().read() == 'k' ? "accepted" : "refused: the connection ended";
            }
        } catch (Exception error) {
            return "refused: " + error.toString().replace('\n', ' ');
        }
    }

    static String upgrade(SSLSocket socket, String query) throws IOException {
        String request = "GET /?" + query + " HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            + "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: bm90IHNlY3JldCwgMTYgYg==\r\n\r\n";
        socket.getOutputStream().write(request.getBytes("US-ASCII"));
        return new BufferedReader(new InputStreamReader(socket.getInputStream(), "US-ASCII")).readLine();
    }

    static TrustManager[] platform(List<X509Certificate> anchors) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null);
        for (X509Certificate each : anchors) {
            store.setCertificateEntry(each.getSubjectX500Principal().getName(), each);
        }
        TrustManagerFactory factory = TrustManagerFactory.getInstance("PKIX");
        factory.init(store);
        return factory.getTrustManagers();
    }

    static class FirstOnly implements X509TrustManager {
        final X509Certificate anchor;

        FirstOnly(X509Certificate anchor) {
            this.anchor = anchor;
        }

        public void checkServerTrusted(X509Certificate[] chain, String kind) throws CertificateException {
            try {
                if (chain.length != 2) {
                    throw new CertificateException(chain.length + " certificates were sent");
                }
                for (X509Certificate each : chain) {
                    each.checkValidity();
                    if (each.getNotBefore().toInstant().isBefore(Instant.now().minus(OLDEST))) {
                        throw new CertificateException("a certificate is too old");
                    }
                }
                PKIXParameters parameters = new PKIXParameters(Set.of(new TrustAnchor(anchor, null)));
                parameters.setRevocationEnabled(false);
                CertPath path = CertificateFactory.getInstance("X.509").generateCertPath(List.of(chain));
                CertPathValidator.getInstance("PKIX").validate(path, parameters);
            } catch (java.security.GeneralSecurityException error) {
                throw new CertificateException(error);
            }
        }

        public void checkClientTrusted(X509Certificate[] chain, String kind) throws CertificateException {
            throw new CertificateException("this is a client");
        }

        public X509Certificate[] getAcceptedIssuers() {
            return new X509Certificate[] {anchor};
        }
    }
}
