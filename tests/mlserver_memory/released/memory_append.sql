-- The function by which release 0.1 appends on PostgreSQL.
CREATE OR REPLACE FUNCTION "memory_append"(p_id VARCHAR, p_digest VARCHAR, p_namespace_id VARCHAR, p_namespace TEXT, p_memory_id TEXT, p_offset BIGINT, p_now DOUBLE PRECISION, p_record TEXT, p_more TEXT[], p_provenance TEXT, p_size BIGINT, p_known_row TEXT, p_known_updated DOUBLE PRECISION) RETURNS TABLE (o_sequence bigint, o_record text, o_created double precision, o_provenance text) LANGUAGE plpgsql AS '
#variable_conflict use_column
DECLARE
  v_count CONSTANT bigint := 1 + coalesce(cardinality(p_more), 0);
  v_last bigint;
  v_system bigint;
  v_row xid;
  v_is_known boolean := FALSE;
BEGIN
  IF p_known_row IS NOT NULL THEN
    UPDATE "memory_conversations" AS c SET 
  "system" = CASE WHEN p_offset > 0 THEN c."last" + p_offset ELSE c."system" END,
  "last" = c."last" + v_count,
  "messages" = c."messages" + v_count,
  oldest = CASE WHEN p_offset > 0 THEN 0 ELSE c.oldest END,
  updated = p_now

    WHERE c.id = p_id AND c.xmin = p_known_row::xid AND c.updated = p_known_updated
    RETURNING c."last", c."system", c.xmin INTO v_last, v_system, v_row;
    v_is_known := FOUND;
  END IF;
  IF NOT v_is_known THEN
    INSERT INTO "memory_conversations" AS c
      (id, namespace_id, namespace, memory_id, "last", "system", "messages", oldest, updated)
    VALUES (p_id, p_namespace_id, p_namespace, p_memory_id, v_count, p_offset, v_count, p_now, p_now)
    ON CONFLICT (id) DO UPDATE SET 
  "system" = CASE WHEN p_offset > 0 THEN c."last" + p_offset ELSE c."system" END,
  "last" = c."last" + v_count,
  "messages" = c."messages" + v_count,
  oldest = CASE WHEN p_offset > 0 THEN 0 ELSE c.oldest END,
  updated = p_now

    RETURNING c."last", c."system", c.xmin INTO v_last, v_system, v_row;
  END IF;
  INSERT INTO "memory_appends" (conversation, digest, "last", "system", created)
  VALUES (p_id, p_digest, v_last, v_system, p_now);
  FOR n IN 1 .. v_count LOOP
    INSERT INTO "memory_messages" (conversation, "sequence", "record", created, provenance)
    VALUES (p_id, v_last - v_count + n, CASE n WHEN 1 THEN p_record ELSE p_more[n - 1] END, p_now, p_provenance);
  END LOOP;
  o_sequence := 0;
  o_record := concat_ws('' '', v_last, v_system, v_row);
  RETURN NEXT;
  IF v_is_known THEN
    RETURN;
  END IF;
  IF v_system BETWEEN 1 AND v_last - p_size THEN
    RETURN QUERY SELECT m."sequence", m."record", m.created, m.provenance FROM "memory_messages" AS m
      WHERE m.conversation = p_id AND m."sequence" = v_system;
  END IF;
  RETURN QUERY SELECT m."sequence", m."record", m.created, m.provenance FROM "memory_messages" AS m
    WHERE m.conversation = p_id AND m."sequence" > v_last - p_size AND m."sequence" <= v_last
    ORDER BY m."sequence";
END
'
