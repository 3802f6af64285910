// The comparison as an SVG picture, readable on light and dark pages.
const COLOURS = { "backend-clerk": "#bc4c00", "backend-mintgate": "#1f6feb" };
const PANELS = [
  { title: "Requests in a second", value: ({ rate }) => rate, unit: "/s" },
  { title: "Median", value: ({ p50 }) => p50, unit: " ms" },
  { title: "99 of 100 within", value: ({ p99 }) => p99, unit: " ms" },
  { title: "Calls of the issuer", value: ({ calls }) => calls, unit: "" },
];
const [WIDTH, LEFT, RIGHT, ROW, PANEL] = [760, 250, 660, 22, 44];

const short = (value) => (value >= 100 ? value.toFixed(0) : value.toFixed(1)).replace(/\.0$/, "");
const text = (x, y, body, more = "") => `<text x="${x}" y="${y}"${more}>${body}</text>`;

export function plot(measured) {
  const step = PANEL + ROW * measured.length;
  const height = 20 + step * PANELS.length;
  const panels = PANELS.map(({ title, value, unit }, index) => {
    const top = 20 + step * index;
    const most = Math.max(...measured.map(value));
    const bars = measured.map((one, row) => {
      const y = top + 30 + ROW * row;
      const width = Math.max(1, ((RIGHT - LEFT) * value(one)) / most).toFixed(1);
      const name = `${one.name === "backend-clerk" ? "SDK" : "mintgate"}, ${one.callers} callers${one.failed ? ` (${one.failed} failed)` : ""}`;
      return (
        text(LEFT - 8, y + 13, name, ' text-anchor="end"') +
        `<rect x="${LEFT}" y="${y}" width="${width}" height="${ROW - 5}" fill="${COLOURS[one.name]}"/>` +
        text(LEFT + Number(width) + 6, y + 13, `${short(value(one))}${unit}`)
      );
    });
    return text(16, top + 18, title, ' font-weight="600"') + bars.join("\n");
  });
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" ` +
    `font-family="system-ui, sans-serif" font-size="13" fill="#1f2328">\n<title>A back end with Clerk's SDK, and one behind mintgate</title>\n` +
    `<rect width="${WIDTH}" height="${height}" rx="8" fill="#ffffff"/>\n${panels.join("\n")}\n</svg>\n`
  );
}
