import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HexFormat;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericDatumWriter;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.BinaryEncoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.io.EncoderFactory;

/**
 * Apache Avro reads data: every line of the input is "schema file, hexadecimal datum". It writes
 * each datum as JSON, and the bytes that it would write for the same datum.
 */
public class ReadAvro {
    public static void main(String[] arguments) throws Exception {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] parts = line.split(" ");
            Schema schema = new Schema.Parser().parse(Files.readString(Path.of(parts[0])));
            byte[] data = HexFormat.of().parseHex(parts[1]);
            BinaryDecoder decoder = DecoderFactory.get().binaryDecoder(data, null);
            Object datum = new GenericDatumReader<Object>(schema).read(null, decoder);
            if (!decoder.isEnd()) {
                throw new IllegalStateException("bytes are left over");
            }
            ByteArrayOutputStream again = new ByteArrayOutputStream();
            BinaryEncoder encoder = EncoderFactory.get().binaryEncoder(again, null);
            new GenericDatumWriter<Object>(schema).write(datum, encoder);
            encoder.flush();
            System.out.println(datum);
            System.out.println(HexFormat.of().formatHex(again.toByteArray()));
        }
    }
}
