/* What Bio-Formats says of an image, as JSON: FILE [Y,X]... */

import java.util.ArrayList;
import java.util.List;
import loci.common.services.ServiceFactory;
import loci.formats.ImageReader;
import loci.formats.ome.OMEXMLMetadata;
import loci.formats.services.OMEXMLService;
import ome.xml.model.primitives.Color;

public class BioFormats {
  public static void main(String[] arguments) throws Exception {
    loci.common.DebugTools.setRootLevel("OFF");
    ImageReader reader = new ImageReader();
    OMEXMLService service = new ServiceFactory().getInstance(OMEXMLService.class);
    OMEXMLMetadata metadata = service.createOMEXMLMetadata();
    reader.setMetadataStore(metadata);
    reader.setFlattenedResolutions(false);
    reader.setId(arguments[0]);

    List<String> channels = new ArrayList<>();
    for (int channel = 0; channel < metadata.getChannelCount(0); channel++) {
      Color colour = metadata.getChannelColor(0, channel);
      String rgb = colour == null ? "null" : String.format(
          "[%d, %d, %d]", colour.getRed(), colour.getGreen(), colour.getBlue());
      channels.add(String.format("[%s, %s]", quoted(metadata.getChannelName(0, channel)), rgb));
    }
    List<String> levels = new ArrayList<>();
    List<String> values = new ArrayList<>();
    int width = reader.getSizeX();
    for (int level = 0; level < reader.getResolutionCount(); level++) {
      reader.setResolution(level);
      levels.add(String.format("[%d, %d]", reader.getSizeY(), reader.getSizeX()));
      int factor = Math.round((float) width / reader.getSizeX());
      for (int plane = 0; plane < reader.getImageCount(); plane++) {
        List<String> found = new ArrayList<>();
        for (int i = 1; i < arguments.length; i++) {
          String[] place = arguments[i].split(",");
          int y = Integer.parseInt(place[0]) / factor;
          int x = Integer.parseInt(place[1]) / factor;
          found.add(String.valueOf(reader.openBytes(plane, x, y, 1, 1)[0] & 255));
        }
        values.add(found.toString());
      }
    }
    System.out.println(String.format(
        "{\"format\": %s, \"name\": %s, \"pixel_um\": %s, \"type\": %s, \"channels\": %s, "
            + "\"levels\": %s, \"values\": %s}",
        quoted(reader.getFormat()), quoted(metadata.getImageName(0)),
        metadata.getPixelsPhysicalSizeX(0) == null ? "null"
            : metadata.getPixelsPhysicalSizeX(0).value(ome.units.UNITS.MICROMETER),
        quoted(metadata.getPixelsType(0).toString()), channels, levels, values));
  }

  private static String quoted(String text) {
    return text == null ? "null" : '"' + text.replace("\\", "\\\\").replace("\"", "\\\"") + '"';
  }
}
